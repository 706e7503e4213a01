"""A short measurement that chooses the window of every block for this device.

For few tokens, the time of a pass is that of reading the weights; for many, it is that of the
arithmetic. Where it changes depends on the chip, the precision and the batch size. The number of
tokens that a window of n commits per sweep was measured on a trained flow, for the deep block and
for shallow ones (docs/sampling.md). The chosen window is the one with the least time per committed
token; a window of 1 means one token at a time.
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

# Window -> tokens committed per sweep, in the deep block and in a shallow one.
COMMITTED_PER_SWEEP = {1: 1.0, 2: 1.05, 4: 1.2, 8: 1.4, 16: 1.75, 32: 2.15, 64: 2.45}
SHALLOW_COMMITTED = {1: 1.0, 8: 1.9, 16: 3.0, 32: 4.3}
SHALLOW_SWEEPS = 9  # in a shallow block with a window over the whole sequence
REPEATS = 3
ENOUGH = 0.1  # seconds of timing after which passes are not repeated
HOPELESS = 2.0  # times the least time per token: above, wider windows are not tried
CLOSE = 1.1  # times the least time per token: up to here counts as equally good
CHAIN = 8  # tokens of the sequential loop that are timed together


def calibrate(flow: Flow, grid: Grid, batch: int, options: SampleOptions) -> tuple[int, ...]:
    """Measure the best window of every block of a flow, for ``SampleOptions.windows``.

    Takes at most about 90 passes over a few tokens and 5 over the whole sequence, with zeros as
    inputs. ``batch``: number of pictures.
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
    """Measure the largest rounding floor of any block (see ``tolerance``). Returns it and the
    smallest tolerance that all blocks can reach.

    ``context``: as for ``invert``; None: zeros. Takes about 33 passes over every block.
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
    """Window n -> seconds of one pass of a block over n tokens in the middle of the sequence.

    ``rates``: window -> tokens committed per sweep. Windows are timed from narrow to wide, until
    one takes HOPELESS times the best time per token. Passes over one token are queued without
    waiting, as in the sequential sampler.
    """
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
    """``count`` passes, each one token further and with the result of the last one as input.
    Waits only for the last."""
    for i in range(count):
        sigma, b = block.affine(tokens, t + i)
        tokens = sigma * tokens + b
        mx.async_eval(tokens)
    mx.eval(tokens)


def best_window(costs: dict[int, float], rates: dict[int, float]) -> int:
    """The narrowest window whose time per committed token is within a tenth of the least.

    costs: window -> seconds per sweep. rates: window -> tokens committed per sweep.
    """
    each = {n: costs[n] / rates[n] for n in costs}
    least = min(each.values())
    return min(n for n in each if each[n] <= CLOSE * least)
