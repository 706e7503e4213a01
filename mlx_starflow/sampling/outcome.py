"""The result of a sampler for one block."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Outcome:
    """The tokens of one inverted block, and what they cost."""

    tokens: mx.array  # (B, T, D) in the block's order
    window: int  # tokens solved at a time
    sweeps: dict[int, int]  # sweeps spent on a window -> number of windows
    host_syncs: int = 0  # times the host waited for results of the device
    converged: bool = True  # False: max_sweeps ended a window early
    residual: float | None = None  # max |b + sigma v - u| if the sampler measured it, else None
    certificate_reads: int = 0  # weight reads spent on measuring the residual
    accuracy: str | None = None  # see BlockReport; None: decided by the residual
    floor: float = 0.0  # largest rounding error that was seen, see sampling/tolerance.py
    floor_reads: int = 0  # weight reads spent on measuring the floor
    allowed: float = math.inf  # a larger residual means "not converged"
