"""Autoencoders of pictures and clips; the latents of one are the data of a STARFlow model."""

from .model import AutoencoderKL
from .registry import KINDS, Autoencoder, Kind, build_vae, read_vae_config, vae_decoding_bytes
from .wan import AutoencoderWan
from .wan_config import WanConfig

__all__ = [
    "KINDS",
    "Autoencoder",
    "AutoencoderKL",
    "AutoencoderWan",
    "Kind",
    "WanConfig",
    "build_vae",
    "read_vae_config",
    "vae_decoding_bytes",
]
