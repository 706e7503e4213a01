"""The image autoencoders whose latents a STARFlow model is a flow over."""

from .model import AutoencoderKL
from .registry import KINDS, Autoencoder, Kind, build_vae, read_vae_config, vae_decoding_bytes

__all__ = [
    "KINDS",
    "Autoencoder",
    "AutoencoderKL",
    "Kind",
    "build_vae",
    "read_vae_config",
    "vae_decoding_bytes",
]
