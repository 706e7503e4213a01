"""What a training tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .material import Encoded
from .trainer import Bits

__all__ = ["Encoded", "Ended", "Evaluated", "Event", "Noted", "Previewed", "Saved", "Stepped"]


@dataclass(frozen=True)
class Noted:
    """A sentence for people."""

    sentence: str


@dataclass(frozen=True)
class Stepped:
    """A step is done."""

    step: int
    steps: int
    bits_per_dim: float  # of the step's batch


@dataclass(frozen=True)
class Evaluated:
    """Held-out pictures were scored."""

    step: int
    valid: Bits
    train: float | None  # mean of the steps since the last evaluation
    is_best: bool


@dataclass(frozen=True)
class Saved:
    """A file is complete."""

    path: Path


@dataclass(frozen=True)
class Previewed:
    """Pictures were drawn from the fixed seeds."""

    path: Path


@dataclass(frozen=True)
class Ended:
    """The training is over; JSON-able."""

    summary: dict[str, Any]


Event = Encoded | Noted | Stepped | Evaluated | Saved | Previewed | Ended
