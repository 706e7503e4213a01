"""What a family's rules find out about a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlx_starflow.config import ClipConfig, FlowConfig, SampleDefaults, TextConfig
from mlx_starflow.errors import ConfigError


@dataclass(frozen=True)
class Architecture:
    """Everything a bundle's configuration needs, and the keys that are left out by rule."""

    flow: FlowConfig
    text: TextConfig | None
    image_size: int
    defaults: SampleDefaults
    dropped: frozenset[str]  # checkpoint keys dropped by a rule
    vae: str = ""  # hub repository of the VAE it was trained with, "" = none is named
    text_encoder: str = ""  # hub repository of its text encoder
    clips: ClipConfig | None = None  # of a model of clips


def contradiction(where: str, key: str, said: Any, found: Any, tensor: str) -> ConfigError:
    """The configuration says one thing and the weights another; both are named."""
    return ConfigError(
        f"{where}: {key} is {said} there and {found} in the weights ({tensor}). "
        "Is it the configuration of this checkpoint?"
    )
