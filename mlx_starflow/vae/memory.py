"""Estimates of the memory that decoding takes, from the configuration of a VAE."""

from __future__ import annotations

from ..config import VAEConfig
from ..device.activations import on_gpu
from .model import LARGE, TILE
from .tiling import clip_tile, picture_tile, tile_cells
from .wan import LARGE as WAN_LARGE
from .wan import TILE as WAN_TILE
from .wan_config import WanConfig

# Arrays of the widest kind that exist at once while a VAE decodes: input, norm, activation,
# convolution, skip; on a CPU also the padded input and the steps of an activation (measured 10 to
# 11 on the embedded model, pictures of 128 to 512 pixels).
_COPIES_GPU, _COPIES_CPU = 6, 11
# The same for WAN2.2, whose convolutions also lay out three frames side by side: counted for a GPU,
# measured 20 to 21 on a CPU, up to 23 in tiles.
_WAN_COPIES_GPU, _WAN_COPIES_CPU = 7, 21


def decoding_bytes(vae: VAEConfig, height: int, width: int, tile: int | None = None) -> int:
    """Estimated peak bytes of decoding one latent of height × width in float32: the largest arrays
    of the decoder. ``tile``: as for ``decode``."""
    output = height * width * vae.factor**2 * vae.out_channels * 4
    if tile is None:
        tile = TILE if height * width > LARGE else 0
    if tile:
        height, width = min(height, tile), min(width, tile)
    widths = vae.block_out_channels[::-1]
    numbers = height * width * widths[0]
    for level, channels in enumerate(widths):
        pixels = height * width * 4**level
        # The input of a level has the width of the previous one.
        numbers = max(numbers, pixels * max(channels, widths[max(level - 1, 0)]))
    scores = (height * width) ** 2 * 4 if vae.mid_block_add_attention else 0
    copies = _COPIES_GPU if on_gpu() else _COPIES_CPU
    return max(4 * numbers * copies, 2 * scores) + 2 * output


def tiled_bytes(vae: VAEConfig, height: int, width: int) -> int:
    """``decoding_bytes`` with the tiles of ``vae_tiling``."""
    return decoding_bytes(vae, height, width, picture_tile(height, width))


def wan_decoding_bytes(vae: WanConfig, height: int, width: int, tile: int | None = None) -> int:
    """Estimated peak bytes of decoding a clip of any length in float32, one latent frame at a time:
    the largest arrays of the decoder, and the frames that its convolutions keep. ``tile``: as for
    ``decode``."""
    if tile is None:
        tile = WAN_TILE if height * width > WAN_LARGE else 0
    cells, every = tile_cells(height, width, tile)
    # The last stage begins with four frames, eight times as large, of the width before it.
    numbers = 4 * 64 * cells * max(vae.decoder_multiples[2:]) * vae.decoder_base_dim
    copies = _WAN_COPIES_GPU if on_gpu() else _WAN_COPIES_CPU
    output = 4 * 3 * (16 * height) * (16 * width) * (5 if every > cells else 2)  # tiles are summed
    return 4 * (numbers * copies + wan_kept_numbers(vae, height, width, every) + output)


def wan_tiled_bytes(vae: WanConfig, height: int, width: int) -> int:
    """``wan_decoding_bytes`` with the tiles of ``vae_tiling``."""
    return wan_decoding_bytes(vae, height, width, clip_tile(height, width))


def wan_kept_numbers(vae: WanConfig, height: int, width: int, cells: int | None = None) -> int:
    """Numbers in the frames that the decoder keeps: the last two inputs of every convolution.
    ``cells``: of all tiles together; None: no tiles."""
    cells = height * width if cells is None else cells
    widths = [vae.decoder_base_dim * k for k in vae.decoder_multiples]
    middle = vae.latent_channels + 4 * widths[0]
    # Channels of the inputs of a stage's convolutions (six in space, in time one for a stage that
    # doubles the frames, and the last of all), by its resolution.
    a, b, c, d = widths
    stages = [6 * a + a, a + 5 * b + b, b + 5 * c, c + 5 * d + d]
    return 2 * (height * width * middle + cells * sum(c * 4**i for i, c in enumerate(stages)))
