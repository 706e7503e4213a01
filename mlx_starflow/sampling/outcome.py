"""What a sampler of one block returns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Outcome:
    """Tokens (B, T, D) of one inverted block, in its own order, and how they were found."""

    tokens: mx.array
    window: int  # tokens solved at a time
    sweeps: dict[int, int]  # sweeps spent on a window -> number of windows
    host_syncs: int = 0
    converged: bool = True  # False: max_sweeps ended a window early
    residual: float | None = None  # max |b + sigma v - u|, where the sampler measured it itself
    certificate_reads: int = 0  # weight reads spent on measuring it
    accuracy: str | None = None  # a word of ``tolerance``; None: decided by the residual
    floor: float = 0.0  # largest rounding seen between two groupings of the same tokens
    floor_reads: int = 0  # weight reads spent on seeing it
    allowed: float = math.inf  # a larger residual, whoever measured it, is not converged
