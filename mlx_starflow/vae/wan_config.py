"""The configuration of a WAN2.2 autoencoder in vae/config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config import MAX_WIDTH
from ..errors import ConfigError
from ..files.records import Record

KIND = "wan2.2"  # value of "kind" in vae/config.json
ENCODER_WIDTHS = (1, 2, 4, 4)  # widths of the four stages in units of base_dim
DECODER_WIDTHS = (4, 4, 2, 1)  # widths of the four stages in units of decoder_base_dim
PATCH = 2  # side in pixels of the squares whose pixels become channels


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
