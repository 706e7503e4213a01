"""Processing a large array in overlapping tiles that are blended."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from ..errors import UsageError

SMALLEST = 8  # cells along one side of a tile


def picture_tile(height: int, width: int) -> int:
    """The side of tiles for a latent picture: half of the longer side."""
    return max(SMALLEST, -(-max(height, width) // 2))


def clip_tile(height: int, width: int) -> int:
    """The side of tiles for a latent clip: two of them, with their overlap, cover the longer side.
    Every tile keeps past frames, so fewer and larger tiles need less memory."""
    return max(SMALLEST, -(-4 * max(height, width) // 7))


def tile_cells(height: int, width: int, tile: int) -> tuple[int, int]:
    """Cells of one tile, and of all tiles together. ``tile``: their side; 0: no tiles."""
    if not tile:
        return height * width, height * width
    one = min(tile, height) * min(tile, width)
    count = [len(tile_starts(side, tile, tile // 4)) for side in (height, width)]
    return one, one * count[0] * count[1]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First index of each tile along one side. The last tile is moved back so that it ends at
    ``length``; all tiles have the same size.
    """
    if length <= tile:
        return [0]
    step = tile - overlap
    return [*range(0, length - tile, step), length - tile]


def _ramp(start: int, size: int, starts: list[int]) -> mx.array:
    """Blending weights (size,) of one tile along one side: rising in the overlap with the previous
    tile, falling in the overlap with the next."""
    weight = mx.ones((size,))
    index = mx.arange(size) + 0.5
    place = starts.index(start)
    if place > 0:
        shared = starts[place - 1] + size - start
        weight = mx.minimum(weight, mx.minimum(index / shared, 1.0))
    if place + 1 < len(starts):
        shared = start + size - starts[place + 1]
        weight = mx.minimum(weight, mx.minimum((size - index) / shared, 1.0))
    return weight


def in_tiles(x: mx.array, work: Callable[[mx.array], mx.array], factor: int, tile: int) -> mx.array:
    """Apply ``work`` to overlapping tiles of x (B, h, w, c) and blend the results into
    (B, h*factor, w*factor, ·).

    ``tile``: side of a tile in cells of x; neighbours overlap by a quarter. Each tile is evaluated
    before the next, so the memory is that of one tile and the result.
    ``work`` may return another number of pictures than it is given.
    Errors: UsageError if the tile is smaller than SMALLEST.
    """
    if tile < SMALLEST:
        raise UsageError(f"tile is {tile}; the smallest tile is {SMALLEST} latent cells.")
    height, width = x.shape[1:3]
    rows = tile_starts(height, tile, tile // 4)
    columns = tile_starts(width, tile, tile // 4)
    return blended(x, work, factor, (min(tile, height), min(tile, width)), rows, columns)


def blended(
    x: mx.array,
    work: Callable[[mx.array], mx.array],
    factor: int,
    size: tuple[int, int],
    rows: list[int],
    columns: list[int],
) -> mx.array:
    """``in_tiles`` with tiles of a size (height, width) in cells that begin at these rows and
    columns."""
    height, width = x.shape[1:3]
    high, wide = size
    starts_y, starts_x = [r * factor for r in rows], [c * factor for c in columns]
    total: mx.array | None = None
    weights = mx.zeros((height * factor, width * factor, 1))
    for row in rows:
        for column in columns:
            y = work(x[:, row : row + high, column : column + wide]).astype(mx.float32)
            down = _ramp(row * factor, high * factor, starts_y)
            across = _ramp(column * factor, wide * factor, starts_x)
            weight = (down[:, None] * across[None, :])[..., None]
            area = (
                slice(row * factor, (row + high) * factor),
                slice(column * factor, (column + wide) * factor),
            )
            if total is None:
                total = mx.zeros((y.shape[0], height * factor, width * factor, y.shape[-1]))
            total[(slice(None), *area)] += weight * y
            weights[area] += weight
            mx.eval(total, weights)
    return cast(mx.array, total) / weights
