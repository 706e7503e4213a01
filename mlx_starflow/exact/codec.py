"""Entropy coding of the input of the deep block, quantised to a dithered grid.

Let u be the data after all shallow blocks, which is the input of the deep block. Under the model,
each of its numbers is Gaussian given the tokens before:

    u_t ~ N(b_t(u_<t), sigma_t(u_<t)^2)

u is rounded to the grid ``step * (q + dither)`` with integers q. An entropy coder writes each q
with the probability that this Gaussian gives to its cell. Encoder and decoder run the same loop:
the block gets the *rounded* tokens before t, one token at a time, always in a batch of one, so that
both compute the same numbers. ``codec_integers`` handles the last digits, which may differ on
another machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..device.wired import wired
from ..errors import CodecError, UsageError
from ..flow import Block, Context, Flow
from ..flow.grid import Grid, reverse
from ..sampling import SampleOptions
from ..sampling.conditional import Conditional
from ..sampling.sequential import sequential
from . import codec_integers as integers
from .codec_stream import Reader, Writer

SMALLEST_EXTENT, LARGEST_EXTENT = 4, 20  # symbols lie in -2^extent ... 2^extent
_OPTIONS = SampleOptions(sampler="sequential", compile=False)


@dataclass(frozen=True)
class Code:
    """The code of the tokens of one picture."""

    data: bytes
    symbols: np.ndarray  # (T, D) int32, in the deep block's order
    extent: int  # symbols lie in -2^extent ... 2^extent
    ideal_bits: float  # -sum log2 p of the symbols under the exact Gaussians
    margin: float  # least distance of a parameter from a rounding border, see codec_integers


def deep_block(flow: Flow) -> int:
    """Index of the last block with layers, whose conditionals are the entropy model. Errors:
    UsageError if no block has layers."""
    return _deepest(flow)[0]


def _deepest(flow: Flow) -> tuple[int, Block]:
    found = [(i, block) for i, block in enumerate(flow.blocks) if isinstance(block, Block)]
    if not found:
        raise UsageError("This flow has no block with layers, so it cannot compress pictures.")
    return found[-1]


def before_deep_block(flow: Flow, u: mx.array, grid: Grid, context: Context) -> mx.array:
    """Tokens u (B, T, D) of the data, in raster order -> (B, T, D) after all shallow blocks."""
    for index in range(deep_block(flow)):
        u, _ = flow.through_block(index, u, grid, context)
    return u


def quantised(u: np.ndarray, step: float, dither: np.ndarray) -> np.ndarray:
    """The integers q (T, D) int32 of the cells that contain u (T, D). ``dither`` (T, D): in steps.
    Errors: UsageError if a number is too large for the step."""
    q = np.floor(u.astype(np.float64) / step - dither + 0.5)
    if not np.abs(q).max() <= 1 << LARGEST_EXTENT:
        raise UsageError(
            f"At step {step:g} this picture needs integers larger than 2^{LARGEST_EXTENT}; use a "
            "larger step."
        )
    return q.astype(np.int32)


def restored(q: np.ndarray, step: float, dither: np.ndarray) -> np.ndarray:
    """The centre of the cell of each q, float32, identical on every machine."""
    return ((q + dither) * step).astype(np.float32)


@wired()
def encode_tokens(
    flow: Flow,
    u: mx.array,
    grid: Grid,
    context: Context,
    step: float,
    seed: int,
    margin: float = 0.0,
) -> Code | None:
    """Code the tokens u (1, T, D) of one picture, in raster order, as ``before_deep_block`` returns
    them.

    context: one row. step: width of a cell, in the units of u. seed: of the dither. margin: if a
    parameter is nearer than this to a rounding border, None is returned, and the caller tries
    another seed. Errors: UsageError, NumericsError.
    """
    flip = flow.config.blocks[deep_block(flow)].flip
    values = np.array(reverse(u) if flip else u)[0]
    offsets = integers.dither(seed, *values.shape)
    q = quantised(values, step, offsets)
    extent = max(SMALLEST_EXTENT, int(np.abs(q).max()).bit_length())
    inputs = restored(q, step, offsets)
    conditionals = _Conditionals(flow, grid, context)
    writer, ideal, least = Writer(extent), 0.0, 0.5
    for t in range(grid.tokens):
        sigma, b = conditionals.of(inputs[t - 1] if t else None, t)
        scale_place = integers.scale_grid(sigma, step)
        scale = integers.rounded(scale_place)
        mean_place = integers.mean_grid(b, scale, step)
        least = min(least, integers.margin(scale_place), integers.margin(mean_place))
        if least < margin:
            return None
        writer.put(q[t], scale, integers.rounded(mean_place), offsets[t])
        ideal += cell_bits((inputs[t] - b) / sigma, step / sigma).sum()
    return Code(writer.code(), q, extent, float(ideal), least)


def tokens_of_symbols(flow: Flow, symbols: np.ndarray, step: float, seed: int) -> mx.array:
    """The tokens u (1, T, D), in raster order, of coded symbols (T, D)."""
    u = mx.array(restored(symbols, step, integers.dither(seed, *symbols.shape))[None])
    return reverse(u) if flow.config.blocks[deep_block(flow)].flip else u


@wired()
def decode_tokens(
    flow: Flow,
    data: bytes,
    extent: int,
    grid: Grid,
    context: Context,
    step: float,
    seed: int,
) -> np.ndarray:
    """The symbols (T, D) int32 that ``encode_tokens`` coded, in the deep block's order.

    Damaged data, or arithmetic that differs too much, give other symbols without an error, so the
    caller must compare a checksum. Errors: CodecError, NumericsError.
    """
    if not SMALLEST_EXTENT <= extent <= LARGEST_EXTENT:
        raise CodecError(f"The code has symbols up to 2^{extent}; the file is damaged.")
    d = flow.config.token_channels
    offsets = integers.dither(seed, grid.tokens, d)
    q = np.zeros((grid.tokens, d), np.int32)
    inputs = np.zeros((grid.tokens, d), np.float32)
    conditionals = _Conditionals(flow, grid, context)
    reader = Reader(data, extent)
    for t in range(grid.tokens):
        sigma, b = conditionals.of(inputs[t - 1] if t else None, t)
        scale = integers.rounded(integers.scale_grid(sigma, step))
        mean = integers.rounded(integers.mean_grid(b, scale, step))
        q[t] = reader.take(scale, mean, offsets[t])
        inputs[t] = restored(q[t], step, offsets[t])
    return q


def before_shallow_blocks(flow: Flow, u: mx.array, grid: Grid, context: Context) -> mx.array:
    """The inverse of ``before_deep_block`` for tokens u (B, T, D), by sequential sampling."""
    for index in reversed(range(deep_block(flow))):
        block, flip = flow.blocks[index], flow.config.blocks[index].flip
        if isinstance(block, Block):
            v = reverse(u) if flip else u
            conditional = Conditional(block, grid, context, u.shape[0], _OPTIONS)
            work = sequential(conditional, v, _OPTIONS)
            while True:
                try:
                    next(work)
                except StopIteration as stop:
                    v = stop.value.tokens
                    break
            u = reverse(v) if flip else v
            mx.eval(u)
    return u


class _Conditionals:
    """sigma and b of the deep block, token by token, in a batch of one."""

    def __init__(self, flow: Flow, grid: Grid, context: Context) -> None:
        index, block = _deepest(flow)
        self._block = Conditional(block, grid, context, 1, _OPTIONS)
        self._channels = flow.config.token_channels
        self._deviation = None
        if "prior_var" in flow:
            deviation = np.sqrt(np.array(flow.prior_var, np.float32))
            self._deviation = deviation[::-1] if flow.config.blocks[index].flip else deviation

    def of(self, previous: np.ndarray | None, t: int) -> tuple[np.ndarray, np.ndarray]:
        """sigma and b (D,) float32 of token t in the block's order; ``previous`` (D,): token
        t - 1."""
        if previous is None:
            previous = np.zeros(self._channels, np.float32)
        sigma, b = self._block.affine(mx.array(previous[None, None]), t)
        mx.eval(sigma, b)
        sigma, b = np.array(sigma)[0, 0], np.array(b)[0, 0]
        return sigma if self._deviation is None else sigma * self._deviation[t], b


def ideal_bits(flow: Flow, u: mx.array, grid: Grid, context: Context, step: float) -> float:
    """An estimate of the bits that ``encode_tokens`` needs, from one parallel pass over
    u (1, T, D)."""
    q = mx.round(u / step) * step
    index, block = _deepest(flow)
    q = reverse(q) if flow.config.blocks[index].flip else q
    sigma, b = Conditional(block, grid, context, 1, _OPTIONS).all_at_once(q)
    return float(cell_bits(np.array((q - b) / sigma), np.array(step / sigma)).sum())


def cell_bits(centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    """-log2 of the probability of cells under the standard normal distribution, accurate in the
    tails. ``centre`` and ``width``: in standard deviations, any shape."""
    centre, width = np.abs(centre.astype(np.float64)), width.astype(np.float64)
    low, high = (centre - width / 2) / math.sqrt(2), (centre + width / 2) / math.sqrt(2)
    p = 0.5 * (_erfc(low) - _erfc(high))
    # Far in the tail: the asymptotic expansion of erfc at the nearer edge.
    far = np.maximum(low, 5.0)
    tail = (far**2 + np.log(2 * math.sqrt(math.pi) * far)) / math.log(2)
    return np.where(low > 25, tail, -np.log2(np.maximum(p, 1e-300)))


def _erfc(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erfc, otypes=[np.float64])(x)
