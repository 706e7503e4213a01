"""The configuration of a WAN2.2 autoencoder in vae/config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config import MAX_WIDTH
from ..errors import ConfigError
from ..files.records import Record

KIND = "wan2.2"  # value of "kind" in vae/config.json
PATCH = 2  # side in pixels of the squares whose pixels become channels
# Factors of each stage in time and along each side in space; None: the stage does not resample.
ENCODER_STEPS = ((1, 2), (2, 2), (2, 2), (1, 1))
DECODER_STEPS = ((2, 2), (2, 2), (1, 2), None)
MAX_MULTIPLE = 64


@dataclass(frozen=True)
class WanConfig(Record):
    """The configuration of a WAN2.2 autoencoder (https://github.com/Wan-Video/Wan2.2)."""

    _limits = {
        "base_dim": (1, MAX_WIDTH // 4),
        "decoder_base_dim": (1, MAX_WIDTH // 4),
        "latent_channels": (1, 1 << 12),
        "temporal_scale": (1e-6, 1e6),
    }

    base_dim: int  # width of the encoder's first stage
    decoder_base_dim: int  # width of the decoder's last stage
    latent_channels: int
    latents_mean: tuple[float, ...]  # one for every latent channel
    latents_std: tuple[float, ...]
    temporal_scale: float = 1.0  # factor of the flow's latent frames after the first
    # Widths of the four stages in units of base_dim, and, in reverse, of decoder_base_dim.
    multiples: tuple[int, ...] = (1, 2, 4, 4)

    def __post_init__(self) -> None:
        self._check_limits()
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) != self.latent_channels:
                raise ConfigError(
                    f"{name} has {len(getattr(self, name))} numbers; expected one for each of "
                    f"{self.latent_channels} latent channels."
                )
        if not all(1e-6 < s < 1e6 for s in self.latents_std):
            raise ConfigError("latents_std holds a number that is not between 1e-6 and 1e6.")

        self._check_multiples()

    def _check_multiples(self) -> None:
        m = self.multiples
        if len(m) != len(ENCODER_STEPS) or not all(1 <= k <= MAX_MULTIPLE for k in m):
            raise ConfigError(
                f"multiples is {list(m)}; expected four whole numbers from 1 to {MAX_MULTIPLE}."
            )
        # What passes by a stage becomes means of groups of channels, or is repeated.
        for first, last, (time, side) in zip((m[0], *m), m, ENCODER_STEPS, strict=False):
            if first * time * side**2 % last:
                raise ConfigError(f"multiples is {list(m)}: {last} does not fit after {first}.")
        wide = self.decoder_multiples
        for first, last, step in zip((wide[0], *wide), wide, DECODER_STEPS, strict=False):
            if step is not None and last * step[0] * step[1] ** 2 % first:
                raise ConfigError(f"multiples is {list(m)}: {last} does not fit before {first}.")

    @property
    def decoder_multiples(self) -> tuple[int, ...]:
        """Widths of the decoder's four stages in units of decoder_base_dim."""
        return self.multiples[::-1]

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return 16

    @property
    def temporal_factor(self) -> int:
        """Frames per latent frame; the first latent frame is one frame only."""
        return 4

    @property
    def out_channels(self) -> int:
        return 3

    def to_dict(self) -> dict[str, Any]:
        return {"kind": KIND, **super().to_dict()}
