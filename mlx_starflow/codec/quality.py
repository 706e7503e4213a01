"""Steps of the quantiser: the units in a file, and a quality scale from 0 to 100."""

from __future__ import annotations

from ..errors import UsageError

UNITS = 1024  # a file stores the step in units of 1/1024
LARGEST_UNITS = 2**16 - 1
DEFAULT_STEP = 0.5
_OCTAVE = 20  # increase of quality that halves the step


def step_units(step: float) -> int:
    """The step in units of 1/UNITS, rounded. Errors: UsageError if it is out of range."""
    units = round(step * UNITS) if step == step and abs(step) < LARGEST_UNITS else 0
    if not 1 <= units <= LARGEST_UNITS:
        raise UsageError(
            f"step is {step}; expected a number from {1 / UNITS:g} to {LARGEST_UNITS / UNITS:g}."
        )
    return units


def step_of_quality(quality: float) -> float:
    """The step for a quality from 0 (step 2.83, rough) over 50 (0.5) to 100 (0.088). Errors:
    UsageError."""
    if not 0 <= quality <= 100:
        raise UsageError(f"quality is {quality}; expected a number from 0 to 100.")
    return 2 ** (1.5 - quality / _OCTAVE)
