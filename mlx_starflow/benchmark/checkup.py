"""The result of one check of ``doctor``, and functions that the checks share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx

from ..device.activations import for_export
from ..device.typed import scalar

OK, SLOW, WRONG, SKIPPED = "ok", "slow", "wrong", "skipped"


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    status: str  # OK | SLOW | WRONG | SKIPPED
    measured: Any  # numbers or texts, as values for JSON
    expected: str
    meaning: str  # a sentence for the user: what the result means

    def to_dict(self) -> dict[str, Any]:
        """The fields as values for JSON."""
        return asdict(self)


def judged(name: str, good: bool, measured: Any, expected: str, fine: str, bad: str) -> Check:
    """A check with status OK and meaning ``fine``, or WRONG and ``bad``."""
    return Check(name, OK if good else WRONG, measured, expected, fine if good else bad)


def seconds(work: Callable[[], Any], repeat: int = 3, enough: float = 0.5) -> float:
    """The shortest time of ``repeat`` calls of ``work`` in seconds, after a first call that is not
    timed. Stops early after ``enough`` seconds in total."""
    work()
    times: list[float] = []
    while len(times) < repeat and sum(times) < enough:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def largest(a: mx.array) -> float:
    """The largest absolute value."""
    return scalar(mx.abs(a.astype(mx.float32)).max())


def casts_in(function: Callable[..., Any], *arrays: mx.array, at_least: int) -> list[str]:
    """The conversions between dtypes in the graph of function(*arrays) -> arrays, of arrays with
    ``at_least`` elements: texts such as "3072x3072 bfloat16 -> float32"."""
    found: list[str] = []

    def look(event: dict[str, Any]) -> None:
        if event["type"] != "primitive" or event["name"] != "AsType":
            return
        _, shape, old = event["inputs"][0]
        new, count = event["outputs"][0][2], 1
        for side in shape:
            count *= side
        if count >= at_least and old != new:
            sides = "x".join(map(str, shape))
            found.append(f"{sides} {_name(old)} -> {_name(new)}")

    mx.export_function(look, for_export()(function), *arrays)
    return found


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
