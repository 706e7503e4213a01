"""The flags of commands that run on several ranks, and the start of the ranks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .membership import command_line, started_by_launcher
from .options import MEMORY, option

if TYPE_CHECKING:
    from ..flow.split import Split
    from ..ranks import Group

NumRanks = Annotated[
    int | None,
    option("--ranks", panel=MEMORY, metavar="N", min=1, help="Run on N ranks, by mlx.launch: on "
            "this machine, or on each host of --hostfile (docs/many-macs.md)."),
]  # fmt: skip
HostFile = Annotated[
    Path | None,
    option("--hostfile", panel=MEMORY, metavar="FILE", help="Run on the hosts in this file of "
            "mlx.launch."),
]  # fmt: skip


class SplitBy(StrEnum):
    """Values of --split."""

    pictures = "pictures"
    guidance = "guidance"
    tensor = "tensor"


SplitOption = Annotated[
    SplitBy,
    option("--split", panel=MEMORY, help="What ranks divide: pictures, each of them on one rank "
            "(default); guidance, the captions of a picture on one rank and the null captions on "
            "another; tensor, the weights, for a model that does not fit one machine."),
]  # fmt: skip


@dataclass(frozen=True)
class RankFlags:
    """Where a command runs."""

    ranks: NumRanks = None
    hostfile: HostFile = None

    def start(self) -> None:
        """Run this command line on the ranks that the flags ask for and exit with its status; go on
        if they ask for none, or in a process that is a rank itself. Errors: UsageError."""
        if started_by_launcher() or (self.hostfile is None and self.ranks in (None, 1)):
            return
        from ..ranks.launching import Launch

        arguments = command_line()
        if "-" in arguments:
            raise UsageError("Several ranks cannot read standard input; write it to a file.")
        command = [sys.executable, "-m", "mlx_starflow", *arguments]
        status = Launch(command, self.ranks, self.hostfile, _show).run()
        raise typer.Exit(status)


def _show(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def split_of(split: SplitBy, group: Group | None, no_guidance: str) -> Split | None:
    """How ranks divide the model; None: every rank has all of it. ``no_guidance``: why
    --split guidance is of no use to the command. Errors: UsageError."""
    if group is None:
        check_alone(split)
        return None
    if split is SplitBy.guidance:
        raise UsageError(f"{no_guidance}; use --split tensor, or leave --split out.")
    if split is SplitBy.pictures:
        return None
    from ..flow.split import Split
    from ..ranks.engine import mlx_group

    return Split(split.value, mlx_group(group))


def check_alone(split: SplitBy) -> None:
    """Errors: UsageError for a split in a process that is alone."""
    if split is not SplitBy.pictures:
        raise UsageError(
            f"--split {split.value} needs several ranks: --ranks N or --hostfile FILE."
        )
