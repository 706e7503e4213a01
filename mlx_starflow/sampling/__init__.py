"""Samplers, which invert one block each, and ``invert``, the loop over the blocks of a flow."""

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
