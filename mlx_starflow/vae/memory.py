"""Bytes that decoding takes, told from a configuration."""

from __future__ import annotations

from ..config import VAEConfig
from ..device.activations import on_gpu
from .conv import BAND_NUMBERS
from .model import LARGE, TILE
from .wan import LARGE as WAN_LARGE
from .wan import TILE as WAN_TILE
from .wan_config import WanConfig

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


def wan_decoding_bytes(vae: WanConfig, height: int, width: int) -> int:
    """What decoding a clip of any length takes, a latent frame at a time, in float32: the widest
    arrays of the decoder and the frames that its convolutions keep."""
    output = 4 * 3 * 4 * (16 * height) * (16 * width)
    cells, kept = height * width, wan_kept_numbers(vae, height, width)
    if cells > WAN_LARGE:
        cells = min(height, WAN_TILE) * min(width, WAN_TILE)
    # The last stage begins with four frames, eight times as large, of twice the last width.
    numbers = 4 * 64 * cells * 2 * vae.decoder_base_dim
    bands = 0 if on_gpu() else 3 * min(27 * numbers, BAND_NUMBERS)
    return 4 * (numbers * _COPIES + kept + bands) + 2 * output


def wan_kept_numbers(vae: WanConfig, height: int, width: int) -> int:
    """Numbers in the frames that the decoder keeps: the last two inputs of every convolution."""
    d = vae.decoder_base_dim
    middle = vae.latent_channels + 4 * 4 * d
    # Channels of the inputs of a stage's convolutions (in space, in time), by its resolution.
    stages = [6 * 4 * d + 4 * d, 6 * 4 * d + 4 * d, 4 * d + 5 * 2 * d, 2 * d + 5 * d + d]
    return 2 * height * width * (middle + sum(c * 4**i for i, c in enumerate(stages)))
