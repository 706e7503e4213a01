"""Measuring samplers against each other: what they cost and how right they are.

``compare`` measures and returns numbers; printing them is the command line's business.
"""

from ..device.machine import Machine, this_machine
from .compare import BenchmarkOptions, compare
from .finish import Finish
from .random_flow import RandomShape, random_context, random_flow
from .results import BenchmarkResult, SamplerResult, Spread, Work
from .specs import SamplerSpec, parse_specs

__all__ = [
    "BenchmarkOptions",
    "BenchmarkResult",
    "Finish",
    "Machine",
    "RandomShape",
    "SamplerResult",
    "SamplerSpec",
    "Spread",
    "Work",
    "compare",
    "parse_specs",
    "random_context",
    "random_flow",
    "this_machine",
]
