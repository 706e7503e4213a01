"""An estimate of the memory that decoding takes, from the configuration of a VAE."""

from __future__ import annotations

from ..config import VAEConfig
from ..device.activations import on_gpu
from .model import LARGE, TILE

# Arrays of the widest kind that exist at once while a VAE decodes: input, norm, activation,
# convolution, skip; on a CPU also the padded input and the steps of an activation (measured 10 to
# 11 on the embedded model, pictures of 128 to 512 pixels).
_COPIES_GPU, _COPIES_CPU = 6, 11


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
    copies = _COPIES_GPU if on_gpu() else _COPIES_CPU
    return max(4 * numbers * copies, 2 * scores) + 2 * output
