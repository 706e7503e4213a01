"""A sampler with its settings in one word: ``name[:window[:tolerance[:sweeps]]]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..sampling import AUTO, SAMPLERS, SampleOptions

FORM = "NAME[:WINDOW[:TOLERANCE[:SWEEPS]]], such as jacobi:16:1e-3 or sliding:32"
REFERENCE = "sequential"  # what every other sampler is measured against
PUBLISHED = "jacobi"  # kept as it was published


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler and what is asked of it; None stands for the sampler's own setting."""

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
        """Whether measuring its residual is part of the method, and so of its time.

        The sequential sampler needs none, being the definition, and the published one has none;
        theirs is measured apart.
        """
        return self.sampler not in (REFERENCE, PUBLISHED)

    @property
    def planned(self) -> bool:
        """Whether the windows are to be measured on this device beforehand."""
        return self.sampler == AUTO and self.block_size is None

    def options(
        self, guidance: float, certify: bool, windows: tuple[int, ...] | None = None
    ) -> SampleOptions:
        """The same in the sampler's terms; ``windows`` of every block, where they are planned."""
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
    """``jacobi:16:1e-3:32`` as a spec; an empty part is the sampler's own setting.

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
    spec.options(0.0, certify=True)  # refuses what no sampler takes
    return spec


def parse_specs(text: str) -> list[SamplerSpec]:
    """Specs separated by commas, each of them once. Errors: UsageError."""
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
