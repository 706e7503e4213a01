"""The autoencoder's decoder as one function, or in tiles that the host puts together."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from ..errors import UsageError
from ..vae import Autoencoder, AutoencoderKL
from ..vae.model import LARGE, TILE
from ..vae.tiling import SMALLEST, tile_starts
from .functions import Array, Function
from .one_function import decoded, modules_of
from .plan import Plan
from .weights import Narrow


def tile_of(plan: Plan, vae: Autoencoder | None) -> int:
    """The side of the decoder's tiles in latent cells; 0: the whole picture at once. Errors:
    UsageError."""
    _, height, width, _ = plan.shape
    if vae is None:
        return 0
    tile = plan.tile
    if not tile and plan.what == "steps" and height * width > LARGE:
        tile = TILE
    if not tile or (tile >= height and tile >= width):
        return 0
    if not isinstance(vae, AutoencoderKL):
        raise UsageError("This model's autoencoder cannot decode in tiles; leave --tile out.")
    if tile < SMALLEST:
        raise UsageError(f"tile is {tile}; the smallest tile is {SMALLEST} latent cells.")
    return tile


def decoder_functions(plan: Plan, vae: Autoencoder | None) -> list[Function]:
    """Functions from a latent (B, h, w, c) to a picture; none for a model of pixels."""
    if vae is None:
        return []
    tile = tile_of(plan, vae)
    if not tile:
        narrow = Narrow(modules_of(vae))

        def decode(latent: mx.array) -> list[mx.array]:
            with narrow.widened():
                return [decoded(vae, latent)]

        return [Function("decode", (Array("latent", plan.shape),), ("picture",), decode)]
    return _in_tiles(plan, vae, tile)


def _in_tiles(plan: Plan, vae: Any, tile: int) -> list[Function]:
    def middle(latent: mx.array) -> list[mx.array]:
        return [vae.middle(latent)]

    def upper(cells: mx.array) -> list[mx.array]:
        return [vae.decoder.upper(cells).astype(mx.float32)]

    _, height, width, channels = plan.shape
    latent = Array("latent", (1, height, width, channels))
    widest = vae.config.block_out_channels[-1]
    kind = vae.decoder.conv_in.weight.dtype
    cells = Array("cells", (1, min(tile, height), min(tile, width), widest), kind)
    return [
        Function("decode.middle", (latent,), ("cells",), middle),
        Function("decode.upper", (cells,), ("picture",), upper),
    ]


def decoder_settings(plan: Plan, vae: Autoencoder | None) -> dict[str, Any]:
    """How the host makes pixels of a denoised latent."""
    if vae is None:
        return {"kind": "pixels"}
    tile = tile_of(plan, vae)
    if not tile:
        return {"kind": "whole"}
    _, height, width, _ = plan.shape
    return {
        "kind": "tiles",
        "factor": vae.config.factor,
        "tile": [min(tile, height), min(tile, width)],
        "rows": tile_starts(height, tile, tile // 4),
        "columns": tile_starts(width, tile, tile // 4),
    }
