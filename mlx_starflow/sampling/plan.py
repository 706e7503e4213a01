"""The sampler and window of each block for the sampler "auto".

Shallow blocks converge in all tokens at once, by about a factor of 10 per sweep, so their window
is the whole sequence. The deep block, inverted first, converges from the first token on, by one to
two tokens per sweep. There a wider window reads the weights less often but needs more arithmetic.
Secants reduce the number of sweeps in the deep block only.

A block that reads each frame of a clip by itself has all frames in its batch. It solves one token
of every frame at a time: this reads the weights once for all frames, while a window would compute
each token several times.
"""

from __future__ import annotations

import dataclasses

from ..flow import Flow
from ..flow.grid import Grid
from .options import SampleOptions

AUTO = "auto"
DEEP_WINDOW = 32  # tokens, if no window was measured for this device


def plan_blocks(flow: Flow, grid: Grid, options: SampleOptions) -> list[SampleOptions]:
    """The options of every block, each with a sampler from SAMPLERS instead of "auto"."""
    deep = len(flow.blocks) - 1
    plan = []
    for index in range(len(flow.blocks)):
        own = options.in_block(index, len(flow.blocks))
        if options.secants is None:
            own = dataclasses.replace(own, secants=index == deep)
        if options.sampler != AUTO:
            plan.append(own)
        elif options.windows is not None:
            plan.append(_with_window(own, options.windows[index]))
        elif index == deep:
            plan.append(_with_window(own, options.block_size or DEEP_WINDOW))
        else:
            order = flow.order(index, grid)
            plan.append(_with_window(own, 1 if order.sequences > 1 else grid.tokens))
    return plan


def _with_window(options: SampleOptions, window: int) -> SampleOptions:
    if window == 1:
        return dataclasses.replace(
            options, sampler="sequential", windows=None, block_size=None, max_sweeps=None
        )
    return dataclasses.replace(options, sampler="sliding", windows=None, block_size=window)
