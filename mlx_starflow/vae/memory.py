"""An estimate of the memory that decoding takes, from the configuration of a VAE."""

from __future__ import annotations

from ..config import VAEConfig
from ..device.activations import on_gpu
from .conv import BAND_NUMBERS
from .model import LARGE, TILE

# Arrays of the largest size that exist at once while a VAE decodes (input, norm, activation,
# convolution, skip).
_COPIES = 6


def decoding_bytes(vae: VAEConfig, height: int, width: int) -> int:
    """Estimated peak bytes of decoding one latent of height × width in float32, in tiles if it is
    large: the largest arrays of the decoder."""
    output = height * width * vae.factor**2 * vae.out_channels * 4
    if height * width > LARGE:
        height, width = min(height, TILE), min(width, TILE)
    widths = vae.block_out_channels[::-1]
    numbers = height * width * widths[0]
    for level, channels in enumerate(widths):
        pixels = height * width * 4**level
        # The input of a level has the width of the previous one.
        numbers = max(numbers, pixels * max(channels, widths[max(level - 1, 0)]))
    scores = (height * width) ** 2 * 4 if vae.mid_block_add_attention else 0
    # On a CPU, convolutions also need the patch matrix of a band of rows (conv.py).
    bands = 0 if on_gpu() else 3 * min(9 * numbers, BAND_NUMBERS)
    return max(4 * (numbers * _COPIES + bands), 2 * scores) + 2 * output
