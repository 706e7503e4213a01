"""A short measurement that chooses every block's window for this device.

A pass over n tokens costs one read of the weights until the arithmetic of its rows outweighs
it; where that is differs by chip, precision and batch. How many tokens a window of n commits per
sweep was measured on a trained flow, for the deep block and for shallow ones (docs/sampling.md);
the window with the least time per committed token wins, one token at a time included.
"""

from __future__ import annotations

import dataclasses
import time
from typing import cast

import mlx.core as mx

from ..flow import Block, Context, Flow
from ..flow.grid import Grid
from .conditional import Conditional
from .invert import stacked_context
from .options import SampleOptions
from .tolerance import constant, measure_floor, tolerance_of

# Tokens committed per sweep by window, for the deep block and for a shallow one.
COMMITTED_PER_SWEEP = {1: 1.0, 2: 1.05, 4: 1.2, 8: 1.4, 16: 1.75, 32: 2.15, 64: 2.45}
SHALLOW_COMMITTED = {1: 1.0, 8: 1.9, 16: 3.0, 32: 4.3}
SHALLOW_SWEEPS = 9  # over the whole sequence
REPEATS = 3
ENOUGH = 0.1  # seconds; slower passes are not repeated
HOPELESS = 2.0  # times the least time per token: wider windows are not tried
CLOSE = 1.1  # times the least time: as good
CHAIN = 8  # tokens of the sequential loop that are timed together


def calibrate(flow: Flow, grid: Grid, batch: int, options: SampleOptions) -> tuple[int, ...]:
    """Windows for every block of a flow, for ``SampleOptions.windows``.

    Takes at most some 90 passes over a few tokens and 5 over the whole sequence, of made-up inputs.
    """
    deep, windows, shallow = len(flow.blocks) - 1, [], {}
    for index, block in enumerate(flow.blocks):
        config, (own, rows) = (
            flow.config.blocks[index],
            sequences(flow, index, grid, batch, options),
        )
        tokens = own.tokens
        if not isinstance(block, Block):
            windows.append(tokens)
        elif index == deep:
            rates = {n: r for n, r in COMMITTED_PER_SWEEP.items() if n <= tokens}
            costs = window_costs(flow, index, own, rows, options, rates)
            windows.append(best_window(costs, rates))
        else:
            shape = dataclasses.replace(config, flip=False)
            if shape not in shallow:  # blocks of one shape cost the same
                rates = {n: r for n, r in SHALLOW_COMMITTED.items() if n < tokens}
                rates[tokens] = max(1.0, tokens / SHALLOW_SWEEPS)
                costs = window_costs(flow, index, own, rows, options, rates)
                shallow[shape] = best_window(costs, rates)
            windows.append(shallow[shape])
    return tuple(windows)


def reachable_tolerance(
    flow: Flow, grid: Grid, batch: int, options: SampleOptions, context: Context = None
) -> tuple[float, float]:
    """The largest floor of any block and the tolerance that can be promised for it.

    ``context`` as ``invert`` takes it; None: made up. Takes some 33 passes over every block.
    """
    floor, promised = 0.0, 0.0
    if context is not None or not flow.config.text_channels:
        context = stacked_context(flow, context, batch, options)
    for index, block in enumerate(flow.blocks):
        if isinstance(block, Block):
            grid_of_one, rows = sequences(flow, index, grid, batch, options)
            given = _made_up(flow, rows, options) if context is None else context
            conditional = Conditional(block, grid_of_one, given, rows, options, steps_of=1)
            shape = (rows, grid_of_one.tokens, flow.config.token_channels)
            own = measure_floor(conditional, mx.random.normal(shape, key=mx.random.key(index)))
            floor = max(floor, own)
            promised = max(promised, tolerance_of(own, constant(block)))
    return floor, promised


def sequences(
    flow: Flow, index: int, grid: Grid, batch: int, options: SampleOptions
) -> tuple[Grid, int]:
    """The grid of one of a block's sequences, of a clip its first window, and how many there are
    in the batch."""
    order = flow.order(index, grid)
    if options.window is not None and order.grid.frames is not None:
        return grid.with_frames(min(options.window, order.grid.frames)), batch
    return order.grid, batch * order.sequences


def _made_up(flow: Flow, batch: int, options: SampleOptions) -> Context:
    config, rows = flow.config, 2 * batch if options.guidance else batch
    if config.text_channels:
        return mx.zeros((rows, config.text_length, config.text_channels))
    return mx.zeros((rows,), dtype=mx.int32) if config.num_classes else None


def window_costs(
    flow: Flow,
    index: int,
    grid: Grid,
    batch: int,
    options: SampleOptions,
    rates: dict[int, float],
) -> dict[int, float]:
    """Seconds of one pass of a block over n tokens in mid-sequence, for the windows n of
    ``rates`` (tokens committed a sweep), the narrow ones first, until they are hopeless; one token
    at a time runs ahead of the host, as the sequential sampler does."""
    config = flow.config
    context, costs = _made_up(flow, batch, options), {}
    for n in sorted(rates):
        whole = cast(Block, flow.blocks[index])
        block = Conditional(whole, grid, context, batch, options, steps_of=n)
        previous = mx.zeros((batch, n, config.token_channels))
        mx.eval(block.affine(previous[:, :1], 0))
        t = (grid.tokens - n) // 2
        count = min(CHAIN, grid.tokens - t) if n == 1 else 1
        _passes(block, previous, t, count)
        seconds: list[float] = []
        while len(seconds) < REPEATS and sum(seconds) < ENOUGH:
            began = time.perf_counter()
            _passes(block, previous, t, count)
            seconds.append((time.perf_counter() - began) / count)
        costs[n] = min(seconds)
        if costs[n] / rates[n] > HOPELESS * min(costs[k] / rates[k] for k in costs):
            break
    return costs


def _passes(block: Conditional, tokens: mx.array, t: int, count: int) -> None:
    """Passes one token apart, each from the last one's result; waits only for the last."""
    for i in range(count):
        sigma, b = block.affine(tokens, t + i)
        tokens = sigma * tokens + b
        mx.async_eval(tokens)
    mx.eval(tokens)


def best_window(costs: dict[int, float], rates: dict[int, float]) -> int:
    """The window with the least time per committed token, ``rates`` tokens committed a sweep; of
    those within a tenth of it the narrowest, which evaluates the fewest tokens in vain."""
    each = {n: costs[n] / rates[n] for n in costs}
    least = min(each.values())
    return min(n for n in each if each[n] <= CLOSE * least)
