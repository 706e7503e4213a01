"""Image autoencoders; the latents of one are the data of a STARFlow model."""

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
