"""Bytes that decoding takes, told from a configuration."""

from __future__ import annotations

from ..config import VAEConfig
from ..device.activations import on_gpu
from .conv import BAND_NUMBERS
from .model import LARGE, TILE

# Arrays of the widest kind that exist at once while a VAE decodes (input, norm, activation,
# convolution, skip).
_COPIES = 6


def decoding_bytes(vae: VAEConfig, height: int, width: int) -> int:
    """The widest arrays of the decoder, in float32, for one picture, tiled where it is large."""
    output = height * width * vae.factor**2 * vae.out_channels * 4
    if height * width > LARGE:
        height, width = min(height, TILE), min(width, TILE)
    widths = vae.block_out_channels[::-1]
    numbers = height * width * widths[0]
    for level, channels in enumerate(widths):
        pixels = height * width * 4**level
        # The first layer of a level has the width of the level before, upsampled.
        numbers = max(numbers, pixels * max(channels, widths[max(level - 1, 0)]))
    scores = (height * width) ** 2 * 4 if vae.mid_block_add_attention else 0
    # On a CPU convolutions also lay out the patches of a band of the picture.
    bands = 0 if on_gpu() else 3 * min(9 * numbers, BAND_NUMBERS)
    return max(4 * (numbers * _COPIES + bands), 2 * scores) + 2 * output
