"""Steps of the quantiser: their grid in a file, and a scale from 0 to 100 for people."""

from __future__ import annotations

from ..errors import UsageError

UNITS = 1024  # a file counts the step in units of 1/1024
LARGEST_UNITS = 2**16 - 1
DEFAULT_STEP = 0.25
_OCTAVE = 20  # points of quality that halve the step


def step_units(step: float) -> int:
    """The step as a file stores it. Errors: UsageError."""
    units = round(step * UNITS) if step == step and abs(step) < LARGEST_UNITS else 0
    if not 1 <= units <= LARGEST_UNITS:
        raise UsageError(
            f"step is {step}; expected a number from {1 / UNITS:g} to {LARGEST_UNITS / UNITS:g}."
        )
    return units


def step_of_quality(quality: float) -> float:
    """0 (step 1.41, a sketch) to 100 (step 0.044); 50 is step 0.25. Errors: UsageError."""
    if not 0 <= quality <= 100:
        raise UsageError(f"quality is {quality}; expected a number from 0 to 100.")
    return 2 ** (0.5 - quality / _OCTAVE)
