"""The registry of autoencoders: "kind" in vae/config.json selects configuration and class.

To add a kind, write a class with the methods of ``Autoencoder`` and add a row to ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx

from ..config import VAEConfig
from ..errors import ConfigError
from .memory import decoding_bytes, tiled_bytes, wan_decoding_bytes, wan_tiled_bytes
from .model import AutoencoderKL
from .wan import AutoencoderWan
from .wan_config import KIND as WAN
from .wan_config import WanConfig

DEFAULT = "autoencoder_kl"  # if vae/config.json has no "kind"


class Autoencoder(Protocol):
    """Pictures to latents and back. Must also be an ``nn.Module`` with the parameters in its
    weight files.

    An autoencoder of clips also takes (B, M, H, W, 3) and (B, N, h, w, c), and has
    ``temporal_factor`` in its configuration and ``decode_stream``, like ``AutoencoderWan``.
    """

    config: Any  # has ``factor``, pixels per latent along one side, and ``latent_channels``

    def encode(self, image: mx.array) -> mx.array:
        """Image (B, H, W, 3) in [-1, 1] → scaled mean latent (B, H / f, W / f, c), float32."""

    def decode(self, latent: mx.array) -> mx.array:
        """Scaled latent (B, h, w, c) → image (B, h f, w f, 3) in about [-1, 1], float32."""


@dataclass(frozen=True)
class Kind:
    """One kind of autoencoder."""

    config: Callable[[dict[str, Any], str], Any]  # settings and file name → configuration
    build: Callable[[Any], Any]  # configuration → module without its weights
    # Configuration, height and width of a latent → estimated peak bytes of decoding one picture.
    decoding_bytes: Callable[[Any, int, int], int]
    # The same with the tiles of ``vae_tiling``; None: it cannot decode in tiles.
    tiled_bytes: Callable[[Any, int, int], int] | None = None


KINDS: dict[str, Kind] = {
    DEFAULT: Kind(VAEConfig.from_dict, AutoencoderKL, decoding_bytes, tiled_bytes),
    WAN: Kind(WanConfig.from_dict, AutoencoderWan, wan_decoding_bytes, wan_tiled_bytes),
}


def read_vae_config(settings: dict[str, Any], where: str) -> Any:
    """The configuration in vae/config.json. Errors: ConfigError."""
    kind, own = _kind(settings, where)
    return kind.config(own, where)


def build_vae(settings: dict[str, Any], where: str) -> Any:
    """The module that vae/config.json describes, without its weights. Errors: ConfigError."""
    kind, own = _kind(settings, where)
    return kind.build(kind.config(own, where))


def vae_decoding_bytes(
    settings: dict[str, Any], where: str, height: int, width: int, tiled: bool = False
) -> int:
    """Estimated peak bytes of decoding one latent of height × width. ``tiled``: in tiles, if this
    kind can. Errors: ConfigError."""
    kind, own = _kind(settings, where)
    count = kind.tiled_bytes if tiled and kind.tiled_bytes else kind.decoding_bytes
    return count(kind.config(own, where), height, width)


def _kind(settings: dict[str, Any], where: str) -> tuple[Kind, dict[str, Any]]:
    name = settings.get("kind", DEFAULT)
    if not isinstance(name, str) or name not in KINDS:
        raise ConfigError(f"{where}: kind is {name!r:.60}; expected one of {', '.join(KINDS)}.")
    return KINDS[name], {k: v for k, v in settings.items() if k != "kind"}
