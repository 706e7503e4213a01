"""Convolutions that are also fast on a CPU, with a tuned BLAS or the reference BLAS."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import on_gpu

# Numbers of one band of a padded picture (4 MiB of float32). Larger arrays are slower: each one is
# new memory from the system.
BAND_NUMBERS = 1 << 20


class Conv3x3(nn.Conv2d):
    """Same-size 3x3 convolution, (B, H, W, in) -> (B, H, W, out); weight (out, 3, 3, in).

    MLX's own convolution lays out the nine neighbours of every pixel and multiplies once. On a CPU
    the copies take longer than the product, so there nine products are added up instead: a padded
    picture whose rows are joined, moved by one pixel or row, is the same array read from another
    place. On a GPU, and for 16-bit pictures, MLX's own is used.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        if on_gpu() or x.dtype != mx.float32:
            return super().__call__(x)  # type: ignore[no-untyped-call]
        offsets = [(i, j, self.weight[:, i, j].T) for i in range(3) for j in range(3)]
        return _in_bands(x, lambda band: _sum_of_products(band, offsets, self.bias))

    def of_doubled(self, x: mx.array) -> mx.array:
        """The convolution of x (B, H, W, in) after each pixel is repeated into a square of 2x2:
        (B, 2H, 2W, out).

        On a CPU: of the 3x3 pixels that make one of the result, only 2x2 differ, so each of the
        four pixels of a square is a convolution of x itself with four sums of the nine weights.
        """
        if on_gpu() or x.dtype != mx.float32:
            batch, height, width, channels = x.shape
            x = mx.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
            return self(x.reshape(batch, 2 * height, 2 * width, channels))
        rows = self.weight.transpose(1, 2, 0, 3)  # (3, 3, out, in)
        squares = [
            [
                (down + i, across + j, tap.T)
                for i, row in enumerate(_halves(rows, down))
                for j, tap in enumerate(_halves(row, across))
            ]
            for down in range(2)
            for across in range(2)
        ]

        def four(band: mx.array) -> mx.array:
            parts = [_sum_of_products(band, offsets, self.bias) for offsets in squares]
            batch, height, width, channels = parts[0].shape
            square = mx.stack(parts, axis=3).reshape(batch, height, width, 2, 2, channels)
            return square.transpose(0, 1, 3, 2, 4, 5).reshape(
                batch, 2 * height, 2 * width, channels
            )

        return _in_bands(x, four)


class Conv1x1(nn.Conv2d):
    """The same matrix for every pixel, (B, H, W, in) -> (B, H, W, out); weight (out, 1, 1, in)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        return x @ self.weight.reshape(self.weight.shape[0], -1).T + self.bias


def _halves(taps: mx.array, second: int) -> tuple[mx.array, mx.array]:
    """Three weights on repeated pixels as two on the pixels themselves, for the first or second
    copy of a pixel."""
    return (taps[0] + taps[1], taps[2]) if second else (taps[0], taps[1] + taps[2])


def _in_bands(x: mx.array, work: Callable[[mx.array], mx.array]) -> mx.array:
    """``work`` on bands of rows of every picture of x (B, H, W, C), each with its neighbours or
    zeros around it, as (1, rows + 2, W + 2, C)."""
    batch, height, width, channels = x.shape
    rows = max(1, BAND_NUMBERS // (width * channels))
    padded = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    pictures = []
    for i in range(batch):
        bands = [
            work(padded[i : i + 1, top : min(top + rows, height) + 2])
            for top in range(0, height, rows)
        ]
        pictures.append(bands[0] if len(bands) == 1 else mx.concatenate(bands, axis=1))
    return pictures[0] if batch == 1 else mx.concatenate(pictures)


def _sum_of_products(
    band: mx.array, offsets: list[tuple[int, int, mx.array]], bias: mx.array
) -> mx.array:
    """bias + the sum over (i, j, tap) of the pixels i rows down and j to the right, times tap
    (in, out): band (1, rows + 2, W + 2, in) -> (1, rows, W, out)."""
    _, high, wide, channels = band.shape
    pixels = mx.pad(band.reshape(-1, channels), [(0, 2), (0, 0)])
    count = (high - 2) * wide  # the last two of every row of the result are of no use
    total = bias
    for i, j, tap in offsets:
        begin = i * wide + j
        total = mx.addmm(total, pixels[begin : begin + count], tap)
    return total.reshape(1, high - 2, wide, -1)[:, :, :-2]
