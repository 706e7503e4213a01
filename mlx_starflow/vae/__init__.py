"""The image autoencoder whose latents a STARFlow model is a flow over."""

from .model import AutoencoderKL

__all__ = ["AutoencoderKL"]
