"""``mlx-starflow generate --split``: all ranks work on every picture, rank 0 saves it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from ..flow.split import TENSOR, Split
from ..generation.events import Event
from ..hub.known import DEFAULT
from ..ranks import Group, agree
from ..ranks.engine import mlx_group
from .console import Console, Progress
from .drawing import Report, check, draw_batch, pipeline_of, run, save_grid
from .drawing_ranks import elsewhere, facts_of, planned, run_over_ranks, workplace
from .job import Job
from .notice import introduce
from .rank_options import SplitBy, check_alone
from .results import interrupted, warn_not_converged


def run_where_asked(job: Job, console: Console, group: Group | None, split: SplitBy) -> Report:
    """Draw and save all pictures of a job in this process, or on the ranks of ``group``. Errors:
    as ``drawing.run``; UsageError for a split in a process by itself."""
    if group is None:
        check_alone(split)
        return run(job, console)
    if split is SplitBy.pictures:
        return run_over_ranks(job, console, group)
    return run_split(job, console, group, split.value)


def run_split(job: Job, console: Console, group: Group, kind: str) -> Report:
    """Draw all pictures of a job, each on all ranks. ``kind``: "guidance" or "tensor". Returns what
    was saved, on ranks other than 0 nothing. Errors as ``drawing.run``."""
    report = Report()
    try:
        if group.rank == 0:
            check(job)
        split = Split(kind, mlx_group(group))
        with (
            pipeline_of(job, console, None, split) as pipe,
            workplace(group) as folder,
        ):
            agree(group, {**facts_of(job, pipe), "split": kind})
            job, left, measured = planned(job, pipe, group, console, measuring=kind != TENSOR)
            progress = Progress(console, len(left))
            report.begun = True

            def follow(event: Event) -> None:
                group.step()
                progress.follow(event)

            with group.watched():
                for number in left:
                    own = measured.of(job, pipe, job.batches[number])
                    one = dataclasses.replace(job, options={**job.options, **own})
                    with _place(one, group, folder) as (mine, found):
                        target = report if group.rank == 0 else found
                        draw_batch(mine, job.batches[number], pipe, console, follow, target)
            if group.rank == 0 and job.model in (None, DEFAULT):
                introduce(pipe, console)
        warn_not_converged([(r["converged"], r["residual"]) for r in report.records], console)
        if job.grid and group.rank == 0:
            save_grid(job, report)
        return report
    except KeyboardInterrupt:
        raise interrupted([r["path"] for r in report.records], job.pictures, "picture") from None
    finally:
        console.clear()


@contextlib.contextmanager
def _place(job: Job, group: Group, folder: Path) -> Iterator[tuple[Job, Report]]:
    """The job of this rank and a report: ranks other than 0 save into ``folder``, which is then
    emptied."""
    if group.rank == 0:
        yield job, Report(begun=True)
        return
    yield elsewhere(job, folder), Report(begun=True)
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
