"""Benchmarks of samplers and precisions, and the checks of ``doctor``."""

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
