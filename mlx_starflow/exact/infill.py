"""Infilling: some tokens of a picture are kept, the others are sampled again.

A causal flow cannot sample some tokens given all others exactly. This sampler keeps the tokens
outside the mask at the input of every block, and draws the others in the block's order:

    deep block      a new token is drawn given the prompt and the tokens before it in the deep
                    block's order, kept or new. It does not depend on kept tokens after it.
    shallow blocks  a new token is inverted given the tokens before it, of which the kept ones are
                    those of the data.

The kept tokens stay exact. The new ones are a sample of the model's distribution given the tokens
before them, but do not depend on kept tokens after them, so there may be a seam. Among several
draws, choose by the likelihood of the whole picture (``mlx_starflow.exact.scoring``), which depends
on both sides.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from ..device.wired import wired_steps
from ..errors import UsageError
from ..flow import Block, Context, Flow
from ..flow.grid import Grid, grid_of, patchify, reverse, unpatchify
from ..sampling import BlockReport, BlockResult, SampleOptions, Step, check_options
from ..sampling.conditional import Conditional
from ..sampling.invert import stacked_context
from .encoding import encode_block


def infill(
    flow: Flow, x: mx.array, z: mx.array, free: mx.array, context: Context = None, **options: Any
) -> mx.array:
    """Sample the ``free`` tokens of x again. Returns (B, H, W, C) float32.

    x (B, H, W, C): the data to keep, with the noise of training added. z (B, H, W, C): standard
    normal noise. free (H / p, W / p): bools, True to draw a token. context, options: as for
    ``invert``; the sampler is always sequential. Errors: UsageError.
    """
    for event in infill_steps(flow, x, z, free, context, SampleOptions(**options)):
        if isinstance(event, BlockResult):
            x = event.x
    return x


@wired_steps
def infill_steps(
    flow: Flow, x: mx.array, z: mx.array, free: mx.array, context: Context, options: SampleOptions
) -> Iterator[Step | BlockResult]:
    """``infill`` as an iterator of events, like ``invert_steps``."""
    if options.sampler not in ("auto", "sequential"):
        raise UsageError(f"sampler is {options.sampler!r}; infilling needs 'sequential'.")
    grid = grid_of(x, flow.config)
    to_draw = _free_list(free, grid)
    if z.shape != x.shape:
        raise UsageError(
            f"The noise has shape {tuple(z.shape)}; expected that of the data, {tuple(x.shape)}."
        )
    # Steps have varying numbers of tokens, so compiling them does not pay.
    options = dataclasses.replace(options, sampler="sequential", compile=False)
    check_options(flow, options)
    context = stacked_context(flow, context, x.shape[0], options)
    known = _inputs_of_blocks(flow, x, grid, context, options)
    u = patchify(z.astype(mx.float32), flow.config)
    if "prior_var" in flow:
        u = u * mx.sqrt(flow.prior_var)
    for index in reversed(range(len(flow.blocks))):
        block, began = flow.blocks[index], time.perf_counter()
        report = BlockReport(index, "identity", grid.tokens, grid.tokens, 0, 0)
        if isinstance(block, Block):
            flip = flow.config.blocks[index].flip
            turn = reverse if flip else _same
            own = options.in_block(index, len(flow.blocks))
            conditional = Conditional(block, grid, context, u.shape[0], own)
            order = to_draw[::-1] if flip else to_draw
            work = _draw(conditional, turn(u), turn(known[index]), order)
            while True:
                try:
                    done = next(work)
                except StopIteration as stop:
                    u = turn(stop.value)
                    break
                yield Step(index, done, grid.tokens)
            mx.eval(u)
            report = BlockReport(
                index,
                "infill",
                grid.tokens,
                1,
                conditional.weight_reads,
                conditional.evaluations,
                seconds=time.perf_counter() - began,
            )
        yield BlockResult(index, unpatchify(u, grid, flow.config), report)


def _draw(
    block: Conditional, v: mx.array, known: mx.array, free: list[bool]
) -> Generator[int, None, mx.array]:
    """Tokens (B, T, D) in the block's order: drawn from noise v where ``free``, else ``known``."""
    previous, tokens, t = mx.zeros_like(v[:, :1]), [], 0
    while t < block.tokens:
        end = t + 1
        while not free[t] and end < block.tokens and not free[end]:
            end += 1
        inputs = mx.concatenate([previous, known[:, t : end - 1]], axis=1)
        sigma, b = block.affine(inputs, t)  # for kept tokens only the cached keys are used
        tokens.append(sigma * v[:, t:end] + b if free[t] else known[:, t:end])
        previous = tokens[-1][:, -1:]
        mx.async_eval(previous)
        t = end
        yield t
    return mx.concatenate(tokens, axis=1)


def _inputs_of_blocks(
    flow: Flow, x: mx.array, grid: Grid, context: Context, options: SampleOptions
) -> list[mx.array]:
    """The tokens (B, T, D) of the data at the input of every block, in raster order."""
    u, inputs = patchify(x.astype(mx.float32), flow.config), []
    for index in range(len(flow.blocks)):
        inputs.append(u)
        if index + 1 < len(flow.blocks):
            u, _ = encode_block(flow, index, u, grid, context, options)
            mx.eval(u)
    return inputs


def _free_list(free: mx.array, grid: Grid) -> list[bool]:
    mask = np.array(mx.array(free).astype(mx.bool_))
    if mask.shape != (grid.height, grid.width):
        raise UsageError(
            f"The mask has shape {mask.shape}; expected ({grid.height}, {grid.width}), one bool "
            "per token."
        )
    return [bool(value) for value in mask.reshape(-1)]


def _same(tokens: mx.array) -> mx.array:
    return tokens
