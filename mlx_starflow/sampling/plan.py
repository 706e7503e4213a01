"""Which sampler and window each block gets when nobody names one.

Shallow blocks converge everywhere at once, about a decade of error a sweep: one window over the
whole sequence. The deep block, inverted first, converges along a front of one to two tokens a
sweep: there a wider window reads the weights less often and burns more arithmetic, and there the
secants pay (a shallow block needs as many sweeps with them).

A block that reads the frames of a clip by themselves has all of them in its batch: token by token
reads its weights once for all frames, and a window over whole frames would compute each token
several times.
"""

from __future__ import annotations

import dataclasses

from ..flow import Flow
from ..flow.grid import Grid
from .options import SampleOptions

AUTO = "auto"
DEEP_WINDOW = 32  # tokens; where nothing was measured


def plan_blocks(flow: Flow, grid: Grid, options: SampleOptions) -> list[SampleOptions]:
    """Options for every block, with a sampler of SAMPLERS named in each."""
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
