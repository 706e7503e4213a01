"""The autoencoders of pictures and clips whose latents a STARFlow model is a flow over."""

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
