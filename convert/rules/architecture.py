"""The result of a family's rules for a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlx_starflow.config import ClipConfig, FlowConfig, SampleDefaults, TextConfig
from mlx_starflow.errors import ConfigError


@dataclass(frozen=True)
class Architecture:
    """What the configuration of a bundle needs, and the checkpoint's keys to drop."""

    flow: FlowConfig
    text: TextConfig | None
    image_size: int
    defaults: SampleDefaults
    dropped: frozenset[str]  # checkpoint keys to drop
    vae: str = ""  # hub repository of the VAE it was trained with, "" = unknown or none
    text_encoder: str = ""  # hub repository of its text encoder, "" = unknown or none
    clips: ClipConfig | None = None  # None for a model of pictures


def contradiction(where: str, key: str, said: Any, found: Any, tensor: str) -> ConfigError:
    """The error for a setting that contradicts the weights; the caller raises it."""
    return ConfigError(
        f"{where}: {key} is {said}, but {found} in the weights ({tensor}). "
        "Does this configuration belong to the checkpoint?"
    )
