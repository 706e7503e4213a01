"""The settings of clips in a STARFlow YAML file (STARFlow-V)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mlx_starflow.config import ClipConfig
from mlx_starflow.errors import ConfigError

from ..read.published_yaml import Settings

TEMPORAL_FACTOR = 4  # frames per latent frame of the WAN autoencoders
# Pixels per latent along one side for repositories whose name contains a text; 8 for all others.
_FACTORS = (("wan2.2", 16),)


@dataclass(frozen=True)
class ClipRules:
    """The settings of clips; a model of pictures has ``frames`` 1 and no ``clips``."""

    clips: ClipConfig | None  # for the bundle's config.json
    frames: int  # number of latent frames of the training clips
    local: bool  # whether the shallow blocks read each frame as a separate sequence


def clip_rules(settings: Settings) -> ClipRules:
    """Derive the rules from the YAML. Errors: ConfigError for settings that are invalid or
    contradict each other."""
    where = settings.where
    if settings.temporal_causal not in (0, 1, 2):
        raise ConfigError(
            f"{where}: temporal_causal is {settings.temporal_causal}; expected 0, 1 or 2."
        )
    if settings.temporal_causal and settings.seq_order != "L2R":
        raise ConfigError(
            f"{where}: temporal_causal is {settings.temporal_causal}, which needs seq_order L2R."
        )
    if settings.shallow_block_local and settings.txt_size and not settings.cond_top_only:
        raise ConfigError(
            f"{where}: shallow_block_local needs cond_top_only, since blocks that read single "
            "frames take no text."
        )
    if not settings.vid_size:
        return ClipRules(None, 1, settings.shallow_block_local)
    frames, *rates = _numbers(settings.vid_size, where)
    _, scale = split_vae(settings)
    factor = TEMPORAL_FACTOR if settings.vae else 1
    latent = (frames - 1) // factor + 1
    clips = ClipConfig(
        frames=frames,
        fps=tuple(rates),
        window=settings.local_attn_window or latent,
        temporal_factor=factor,
        temporal_scale=scale,
    )
    return ClipRules(clips, latent, settings.shallow_block_local)


def _numbers(text: str, where: str) -> list[int]:
    parts = text.split(":")
    if len(parts) < 2 or not all(re.fullmatch(r"[1-9]\d{0,3}", part) for part in parts):
        raise ConfigError(
            f"{where}: vid_size is {text[:80]!r}; expected frames:fps, such as '81:16'."
        )
    return [int(part) for part in parts]


def split_vae(settings: Settings) -> tuple[str, float]:
    """The autoencoder that the YAML names, and the scale of latent frames after the first."""
    name, colon, scale = settings.vae.partition(":")
    if not colon:
        return name, 1.0
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e3:
        raise ConfigError(
            f"{settings.where}: vae is {settings.vae[:80]!r}; expected a positive number after the "
            "colon, the scale of latent frames after the first."
        )
    return name, number


def usual_factor(name: str) -> int:
    """Pixels per latent along one side, guessed from the name of an autoencoder that is not
    available; 1 for no autoencoder."""
    if not name:
        return 1
    return next((f for part, f in _FACTORS if part in name.casefold()), 8)
