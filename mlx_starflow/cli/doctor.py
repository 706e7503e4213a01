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
from .membership import ranks
from .outputs import check_file
from .rank_options import RankFlags

if TYPE_CHECKING:
    from ..benchmark.checkup import Check
    from ..benchmark.doctor import Report
    from ..ranks import Group

CHECKS = 11
EPILOG = """\b
Examples:
  mlx-starflow doctor                      eleven checks, a minute at most
  mlx-starflow doctor --report doctor.md   also write a report, to paste into an issue
  mlx-starflow doctor --json               the results as JSON
  mlx-starflow doctor --hostfile hosts.json   latency and bandwidth between these machines
"""

ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write a report in Markdown to this file."),
]


def doctor(
    report: ReportFile = None,
    model: o.Model = None,
    *,
    where: RankFlags,
    messages: o.Messages,
) -> None:
    """Check whether MLX computes correctly on this machine; exit status 1 if it does not. With
    --hostfile or --ranks: measure how fast the ranks reach each other instead."""
    where.start()
    console, group = Console(messages.quiet), ranks()
    if group is not None:
        tell_link(group, messages.json_)
        return
    from ..benchmark.doctor import Report

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


def tell_link(group: Group, as_json: bool) -> None:
    """Measure the links between the ranks; rank 0 prints a table or one JSON object."""
    from ..ranks import agree
    from ..ranks.engine import mlx_group
    from ..ranks.measure import measure_link
    from .tables import aligned

    engine = mlx_group(group)
    agree(group, {})
    with group.watched():
        link = measure_link(engine)
    hosts = group.gather(group.host)
    if group.rank:
        return
    if as_json:
        typer.echo(json.dumps({"hosts": hosts, **link.to_dict()}))
        return
    rows = [["all-sum of", "time"]]
    rows += [[f"{size:,} bytes", f"{s * 1e6:,.0f} us"] for size, s in link.seconds.items()]
    typer.echo(f"{link.ranks} ranks: {', '.join(hosts)}")
    typer.echo(aligned(rows, left={0}))
    typer.echo(f"One message to a neighbour: {link.latency * 1e6:,.0f} us")
    typer.echo(f"Bandwidth to a neighbour: {link.bandwidth / 1e9:.2f} GB/s")
