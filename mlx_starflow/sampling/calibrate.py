"""A short measurement that chooses the deep block's window for this device.

A pass over n tokens costs one read of the weights until the arithmetic of its rows outweighs
it; where that is differs by chip, precision and batch. The deep block commits so many tokens a
sweep for a window of n (measured on a trained flow, see docs/sampling.md); the window with the
least time per committed token wins, one token at a time included.
"""

from __future__ import annotations

import time

import mlx.core as mx

from ..flow import Block, Flow
from ..grid import Grid
from .conditional import Conditional
from .options import SampleOptions

# Tokens that the deep block commits per sweep, by window.
COMMITTED_PER_SWEEP = {1: 1.0, 4: 1.25, 8: 1.45, 16: 1.85, 32: 2.2}
REPEATS = 3


def calibrate(flow: Flow, grid: Grid, batch: int, options: SampleOptions) -> tuple[int, ...]:
    """Windows for every block of a flow, for ``SampleOptions.windows``.

    Takes some 20 passes of the deep block over a few tokens with made-up inputs.
    """
    windows = [grid.tokens] * len(flow.blocks)
    deep = flow.blocks[-1]
    if isinstance(deep, Block):
        windows[-1] = best_window(window_costs(flow, grid, batch, options), grid.tokens)
    return tuple(windows)


def window_costs(flow: Flow, grid: Grid, batch: int, options: SampleOptions) -> dict[int, float]:
    """Seconds of one pass of the deep block over n tokens in mid-sequence, by n."""
    config = flow.config
    rows = 2 * batch if options.guidance else batch
    context = None
    if config.text_channels:
        context = mx.zeros((rows, config.text_length, config.text_channels))
    elif config.num_classes:
        context = mx.zeros((rows,), dtype=mx.int32)
    costs = {}
    for n in COMMITTED_PER_SWEEP:
        if n > grid.tokens // 2:
            break
        block = Conditional(flow.blocks[-1], grid, context, batch, options, steps_of=n)
        previous = mx.zeros((batch, n, config.token_channels))
        t = max(1, (grid.tokens - n) // 2)
        mx.eval(block.affine(previous, t))
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            mx.eval(block.affine(previous, t))
            seconds.append(time.perf_counter() - began)
        costs[n] = min(seconds)
    return costs


def best_window(costs: dict[int, float], tokens: int) -> int:
    """The window with the least time per committed token."""
    if not costs:
        return tokens
    return min(costs, key=lambda n: costs[n] / COMMITTED_PER_SWEEP[n])
