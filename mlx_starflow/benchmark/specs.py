"""Samplers with settings, written as ``name[:window[:tolerance[:sweeps]]]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..sampling import AUTO, SAMPLERS, SampleOptions

FORM = "NAME[:WINDOW[:TOLERANCE[:SWEEPS]]], such as jacobi:16:1e-3 or sliding:32"
REFERENCE = "sequential"  # the sampler that all others are compared with
PUBLISHED = "jacobi"  # the published sampler


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler with its settings; None is the sampler's default."""

    sampler: str
    block_size: int | None = None
    tolerance: float | None = None
    max_sweeps: int | None = None

    def __str__(self) -> str:
        parts = [self.sampler, *map(_text, (self.block_size, self.tolerance, self.max_sweeps))]
        while not parts[-1]:
            parts.pop()
        return ":".join(parts)

    @property
    def certifies(self) -> bool:
        """Whether measuring the residual is part of the sampler, and is included in its time.

        It is not for the sequential sampler, which needs no residual, and the published one, which
        measures none; their residuals are measured separately.
        """
        return self.sampler not in (REFERENCE, PUBLISHED)

    @property
    def planned(self) -> bool:
        """Whether the windows must be measured on this device before."""
        return self.sampler == AUTO and self.block_size is None

    def options(
        self, guidance: float, certify: bool, windows: tuple[int, ...] | None = None
    ) -> SampleOptions:
        """The ``SampleOptions`` for this spec. ``windows``: of every block, if ``planned``."""
        return SampleOptions(
            guidance=guidance,
            sampler=self.sampler,
            block_size=self.block_size,
            tolerance=self.tolerance,
            max_sweeps=self.max_sweeps,
            windows=windows,
            certify=certify,
        )


def parse_spec(text: str) -> SamplerSpec:
    """Parse a text such as "jacobi:16:1e-3:32"; an empty part is the sampler's default.

    Errors: UsageError naming the part that is wrong.
    """
    name, *settings = (part.strip() for part in text.split(":"))
    known = [AUTO, *SAMPLERS]
    if name not in known:
        raise UsageError(f"sampler is {name!r}; expected one of {', '.join(known)}, as {FORM}.")
    if len(settings) > 3:
        raise UsageError(f"{text!r} has {len(settings)} settings; expected {FORM}.")
    if name == REFERENCE and any(settings):
        raise UsageError(f"{text!r}: the sequential sampler has no settings; write sequential.")
    settings += [""] * (3 - len(settings))
    spec = SamplerSpec(
        name,
        block_size=_number(text, "window", settings[0], int),
        tolerance=_number(text, "tolerance", settings[1], float),
        max_sweeps=_number(text, "most sweeps", settings[2], int),
    )
    spec.options(0.0, certify=True)  # checks the values
    return spec


def parse_specs(text: str) -> list[SamplerSpec]:
    """Parse specs separated by commas; repeated ones are dropped. Errors: UsageError."""
    parts = [part for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"--samplers is empty; expected a list of {FORM}.")
    return list(dict.fromkeys(parse_spec(part) for part in parts))


def _number(spec: str, name: str, text: str, kind: type) -> Any:
    if not text:
        return None
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{spec!r}: the {name} is {text!r}; expected {FORM}.") from None


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
