"""``mlx-starflow doctor``: checks whether this machine computes correctly, and how fast."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from . import options as o
from .console import Console
from .failures import interruptible
from .outputs import check_file

if TYPE_CHECKING:
    from ..benchmark.checkup import Check
    from ..benchmark.doctor import Report

CHECKS = 11
EPILOG = """\b
Examples:
  mlx-starflow doctor                      eleven checks, a minute at most
  mlx-starflow doctor --report doctor.md   also write a report, to paste into an issue
  mlx-starflow doctor --json               the results as JSON
"""

ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write a report in Markdown to this file."),
]


def doctor(
    report: ReportFile = None,
    model: o.Model = None,
    *,
    messages: o.Messages,
) -> None:
    """Check whether MLX computes correctly on this machine; exit status 1 if it does not."""
    from ..benchmark.doctor import Report

    console = Console(messages.quiet)
    last: Report | None = None
    if report is not None:
        check_file(report)
    number = 0
    with interruptible(lambda: f"{number} of {CHECKS} checks are done, nothing is reported"):
        for number, item in enumerate(examine(model), start=1):
            if isinstance(item, Report):
                last = item
            else:
                console.draw(item.name, "", number / CHECKS, None)
    console.clear()
    found = cast(Report, last)
    if report is not None:
        report.write_text(found.markdown(), encoding="utf-8")
    typer.echo(json.dumps(found.to_dict()) if messages.json_ else "\n".join(found.lines()))
    if found.wrong:
        raise typer.Exit(1)


def examine(model: str | None) -> Iterator[Check | Report]:
    """Run the checks. They are imported here and not above so that ``--help`` is fast."""
    from ..benchmark.doctor import examine as run

    return run(model)
