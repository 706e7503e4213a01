"""Entropy coding of the input of the deep block, quantised around the means that it predicts.

Let u be the data after all shallow blocks, which is the input of the deep block. Under the model,
each of its numbers is Gaussian given the tokens before:

    u_t ~ N(b_t(u_<t), sigma_t(u_<t)^2)

u_t is rounded to the grid ``b_t + step * q`` with integers q. An entropy coder writes each q with
the probability that this Gaussian gives to its cell. Encoder and decoder run the same loop: the
block gets the *rounded* tokens before t, one token at a time, always in a batch of one, so that
both compute the same numbers. ``codec_integers`` handles the last digits, which may differ on
another machine.
"""

from __future__ import annotations

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
from .codec_cells import LARGEST_EXTENT, THRIFT, cell_bits, cell_means, chosen
from .codec_integers import Gaussians, Shifts
from .codec_stream import Reader, Writer

SMALLEST_EXTENT = 4  # symbols lie in -2^extent ... 2^extent
_OPTIONS = SampleOptions(sampler="sequential", compile=False)


@dataclass(frozen=True)
class Code:
    """The code of the tokens of one picture."""

    data: bytes
    symbols: np.ndarray  # (T, D) int32, in the deep block's order
    tokens: mx.array  # (1, T, D) in raster order: what the decoder restores
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


@wired()
def encode_tokens(
    flow: Flow,
    u: mx.array,
    grid: Grid,
    context: Context,
    step: float | np.ndarray,
    seed: int,
    margin: float = 0.0,
    thrift: float = THRIFT,
) -> Code | None:
    """Code the tokens u (1, T, D) of one picture, in raster order, as ``before_deep_block`` returns
    them.

    context: one row. step: width of a cell, in the units of u; one number, or one for each of the
    D numbers of a token. seed: of the shifts, see ``codec_integers``. margin: if a parameter is
    nearer than this to a rounding border, None is returned, and the caller tries another seed.
    thrift: see ``codec_cells.chosen``. Errors: UsageError, NumericsError.
    """
    flip = flow.config.blocks[deep_block(flow)].flip
    values = np.array(reverse(u) if flip else u)[0].astype(np.float64)
    work = _Tokens(flow, grid, context, step, seed)
    scales, ideal, least = [], 0.0, 0.5
    for t in range(grid.tokens):
        sigma, b, gaussians = work.next()
        least = min(least, gaussians.margin)
        if least < margin:
            return None
        q = chosen(values[t] / work.step - gaussians.mean, gaussians.deviation, thrift)
        work.put(q, gaussians)
        scales.append(gaussians.scale)
        ideal += cell_bits((work.tokens[t] - b) / sigma, work.step / sigma).sum()
    extent = max(SMALLEST_EXTENT, int(np.abs(work.symbols).max()).bit_length())
    writer = Writer(extent)
    for q, scale in zip(work.symbols, scales, strict=True):
        writer.put(q, scale)
    return Code(writer.code(), work.symbols, work.restored(), extent, float(ideal), least)


@dataclass(frozen=True)
class Decoded:
    """What ``decode_tokens`` reads."""

    symbols: np.ndarray  # (T, D) int32, in the deep block's order
    tokens: mx.array  # (1, T, D) in raster order


@wired()
def decode_tokens(
    flow: Flow,
    data: bytes,
    extent: int,
    grid: Grid,
    context: Context,
    step: float | np.ndarray,
    seed: int,
) -> Decoded:
    """The symbols that ``encode_tokens`` coded, and the tokens that they stand for.

    Damaged data, or arithmetic that differs too much, give other symbols without an error, so the
    caller must compare a checksum. Errors: CodecError, NumericsError.
    """
    if not SMALLEST_EXTENT <= extent <= LARGEST_EXTENT:
        raise CodecError(f"The code has symbols up to 2^{extent}; the file is damaged.")
    work, reader = _Tokens(flow, grid, context, step, seed), Reader(data, extent)
    for _ in range(grid.tokens):
        _, _, gaussians = work.next()
        work.put(reader.take(gaussians.scale), gaussians)
    return Decoded(work.symbols, work.restored())


class _Tokens:
    """The loop of encoder and decoder: Gaussians of a token from the rounded tokens before it."""

    def __init__(
        self, flow: Flow, grid: Grid, context: Context, step: float | np.ndarray, seed: int
    ) -> None:
        size = grid.tokens, flow.config.token_channels
        self.step = np.broadcast_to(np.asarray(step, np.float64), size[1:])
        self.symbols = np.zeros(size, np.int32)
        self.tokens = np.zeros(size, np.float32)  # the centres of the cells
        self._means = np.zeros(size, np.float32)  # the Gaussians' means in the cells
        self._flip = flow.config.blocks[deep_block(flow)].flip
        self._conditionals = _Conditionals(flow, grid, context)
        self._shifts = Shifts.of(seed, *size)
        self._t = -1

    def next(self) -> tuple[np.ndarray, np.ndarray, Gaussians]:
        """sigma and b (D,) of the next token as computed, and as rounded Gaussians."""
        self._t += 1
        previous = self.tokens[self._t - 1] if self._t else None
        sigma, b = self._conditionals.of(previous, self._t)
        return sigma, b, Gaussians.of(sigma, b, self.step, self._shifts, self._t)

    def put(self, q: np.ndarray, gaussians: Gaussians) -> None:
        """Set the symbols (D,) of this token, whose Gaussians ``next`` returned."""
        t, mean = self._t, gaussians.mean
        self.symbols[t] = q
        self.tokens[t] = self.step * (mean + q)
        self._means[t] = self.step * (mean + cell_means(q, gaussians.deviation))

    def restored(self) -> mx.array:
        """The tokens (1, T, D) in raster order: each number is the Gaussian's mean in its cell."""
        u = mx.array(self._means[None])
        return reverse(u) if self._flip else u


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


def ideal_bits(
    flow: Flow, u: mx.array, grid: Grid, context: Context, step: float | np.ndarray
) -> float:
    """An estimate of the bits that ``encode_tokens`` needs, from one parallel pass over
    u (1, T, D)."""
    index, block = _deepest(flow)
    u = reverse(u) if flow.config.blocks[index].flip else u
    sigma, b = Conditional(block, grid, context, 1, _OPTIONS).all_at_once(u)
    steps = np.asarray(step, np.float64)
    deviation = np.array(sigma) / steps
    q = chosen((np.array(u) - np.array(b)) / steps, deviation)
    return float(cell_bits(q / deviation, 1 / deviation).sum())
