"""Which sampler and window each block gets when nobody names one.

Shallow blocks converge everywhere at once, about a decade of error a sweep: one window over the
whole sequence. The deep block, inverted first, converges along a front of one to two tokens a
sweep: there a wider window reads the weights less often and burns more arithmetic.
"""

from __future__ import annotations

import dataclasses

from ..flow import Flow
from ..grid import Grid
from .options import SampleOptions

AUTO = "auto"
DEEP_WINDOW = 32  # tokens; where nothing was measured


def plan_blocks(flow: Flow, grid: Grid, options: SampleOptions) -> list[SampleOptions]:
    """Options for every block, with a sampler of SAMPLERS named in each."""
    if options.sampler != AUTO:
        return [options] * len(flow.blocks)
    deep = len(flow.blocks) - 1
    plan = []
    for index in range(len(flow.blocks)):
        if options.windows is not None:
            window = options.windows[index]
        elif index == deep:
            window = options.block_size or DEEP_WINDOW
        else:
            window = grid.tokens
        plan.append(_with_window(options, window))
    return plan


def _with_window(options: SampleOptions, window: int) -> SampleOptions:
    if window == 1:
        return dataclasses.replace(
            options, sampler="sequential", windows=None, block_size=None, max_sweeps=None
        )
    return dataclasses.replace(options, sampler="sliding", windows=None, block_size=window)
