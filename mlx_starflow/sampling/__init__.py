"""Samplers: free functions that invert one block, and the loop over blocks."""

from .invert import SAMPLERS, check_options, invert, invert_steps
from .options import BlockReport, BlockResult, SampleOptions, Step
from .plan import AUTO

__all__ = [
    "AUTO",
    "SAMPLERS",
    "BlockReport",
    "BlockResult",
    "SampleOptions",
    "Step",
    "check_options",
    "invert",
    "invert_steps",
]
