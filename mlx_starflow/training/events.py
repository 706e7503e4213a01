"""The events that a training yields while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .material import Encoded
from .trainer import Bits

__all__ = ["Encoded", "Ended", "Evaluated", "Event", "Noted", "Previewed", "Saved", "Stepped"]


@dataclass(frozen=True)
class Noted:
    """A sentence to show to the user."""

    sentence: str


@dataclass(frozen=True)
class Stepped:
    """A step is finished."""

    step: int
    steps: int
    bits_per_dim: float  # of the step's batch, before the update


@dataclass(frozen=True)
class Evaluated:
    """The held-out pictures were evaluated."""

    step: int
    valid: Bits
    train: float | None  # bits per dimension, mean of the steps since the last evaluation
    is_best: bool


@dataclass(frozen=True)
class Saved:
    """A numbered copy of the arrays was written."""

    path: Path


@dataclass(frozen=True)
class Previewed:
    """Preview pictures were drawn from the fixed seeds."""

    path: Path


@dataclass(frozen=True)
class Ended:
    """The training has ended; ``summary`` can be written as JSON."""

    summary: dict[str, Any]


Event = Encoded | Noted | Stepped | Evaluated | Saved | Previewed | Ended
