"""``doctor``: eleven checks of whether MLX computes correctly on this machine, and how fast."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..device.machine import this_machine
from ..pipeline import load
from . import device_checks as device
from . import model_checks as model_checks
from .checkup import WRONG, Check

SIGNS = {"ok": "ok", "slow": "slow", "wrong": "WRONG", "skipped": "-"}


@dataclass(frozen=True)
class Report:
    """The results of all checks."""

    checks: tuple[Check, ...]
    device: str
    versions: dict[str, str]
    predictions: dict[str, Any]  # for the published 3B model, by precision; empty on a CPU
    measured_seconds: float  # of the whole run

    @property
    def wrong(self) -> bool:
        """Whether any check is wrong."""
        return any(check.status == WRONG for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as values for JSON."""
        return {
            "checks": [check.to_dict() for check in self.checks],
            "device": self.device,
            "versions": self.versions,
            "predictions": self.predictions,
            "seconds": round(self.measured_seconds, 1),
        }

    def lines(self) -> list[str]:
        """The report as text: one line per check, and one per predicted precision."""
        found = [f"{self.device}, mlx {self.versions['mlx']}, {self.measured_seconds:.0f} s"]
        for number, check in enumerate(self.checks, start=1):
            line = f"{number:>2}  {SIGNS[check.status]:<6} {check.name:<20} {check.meaning}"
            found.append(line.rstrip())
        for name, told in self.predictions.items():
            best = told["best_window"]
            seconds = told["seconds_by_window"]
            found.append(
                f"    3B model in {name}: about {seconds['1']:.0f} s token by token, "
                f"{seconds[str(best)]:.0f} s with windows of {best}"
            )
        return found

    def markdown(self) -> str:
        """The report in Markdown, for bug reports."""
        import json

        rows = [
            f"| {n} | {c.name} | {c.status} | `{json.dumps(c.measured)}` | {c.expected} |"
            for n, c in enumerate(self.checks, start=1)
        ]
        versions = ", ".join(f"{k} {v}" for k, v in self.versions.items())
        return "\n".join(
            [
                "### mlx-starflow doctor", "", f"{self.device}; {versions}; "
                f"{self.measured_seconds:.0f} s", "",
                "| | check | status | measured | expected |", "|---|---|---|---|---|", *rows, "",
                "Predicted seconds of the published 3B model:" if self.predictions
                else "No predictions, which are made on a GPU only.", "",
                *(f"- {k}: `{json.dumps(v)}`" for k, v in self.predictions.items()),
            ]
        ) + "\n"  # fmt: skip


def examine(model: str | None = None) -> Iterator[Check | Report]:
    """Run all checks. Yields each when it is done, and the report last. A check that raises an
    error is reported as wrong, and the others go on. ``model``: as for ``load``."""
    import time

    began, machine, checks = time.perf_counter(), this_machine(), []
    table: dict[str, dict[int, float]] = {}

    def bandwidth() -> Check:
        check, measured = device.bandwidth_check()
        table.update(measured)
        return check

    for name, run in _checks(model, bandwidth):
        checks.append(_safely(name, run))
        yield checks[-1]
    yield Report(
        tuple(checks),
        f"{machine.device} ({machine.device_name or 'unknown'}), {machine.system}",
        {"mlx-starflow": machine.mlx_starflow, "mlx": machine.mlx, "python": machine.python},
        device.predictions(table) if machine.device == "gpu" and table else {},
        time.perf_counter() - began,
    )


def _checks(
    model: str | None, bandwidth: Callable[[], Check]
) -> Iterator[tuple[str, Callable[[], Check]]]:
    yield "machine", device.machine_check
    yield "float32 is float32", device.exactness_check
    with load(model) as pipe:
        subjects: list[model_checks.Subject] = []

        def subject() -> model_checks.Subject:
            if not subjects:
                subjects.append(model_checks.Subject(pipe))
            return subjects[0]

        yield "types", lambda: model_checks.types_check(pipe.flow)
        yield "residual floor", lambda: model_checks.floor_check(model)
        yield "cache in place", lambda: model_checks.cache_check(subject())
        yield "bandwidth", bandwidth
        yield "attention", device.attention_check
        yield "host time", lambda: model_checks.host_check(subject())
        yield "low-ram", lambda: model_checks.low_ram_check(model)
        yield "denoise and decode", lambda: model_checks.finishing_check(subject())
    yield "embedded picture", model_checks.picture_check


def _safely(name: str, run: Callable[[], Check]) -> Check:
    try:
        return run()
    except Exception as error:  # reported as the result of this check
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        return Check(name, WRONG, told, "no error", f"This check raised an error: {error}")
