"""The ranks that this command is one of, and what only rank 0 does: to talk and to write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ..ranks import Group

# Commands that run on several ranks
MANY = ("generate", "score", "encode", "decode", "train", "serve", "doctor")
_current: ContextVar[Group | None] = ContextVar("ranks", default=None)
_arguments: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


def command_line() -> list[str]:
    """The arguments of this command."""
    return list(_arguments.get())


def ranks() -> Group | None:
    """The ranks that run this command; None for one process by itself."""
    return _current.get()


def started_by_launcher() -> bool:
    """Whether mlx.launch started this process, as one of several or alone."""
    return "MLX_RANK" in os.environ


@contextmanager
def membership(command: str | None, arguments: list[str]) -> Iterator[Group | None]:
    """Join the other ranks, if mlx.launch started this process with others; on ranks other than 0
    standard output and error are silent. Errors: UsageError for a command that runs on one rank,
    StarflowError if the others do not come."""
    _arguments.set(tuple(arguments))
    if not started_by_launcher() or _current.get() is not None:
        yield _current.get()
        return
    from ..errors import UsageError
    from ..ranks import Group, place_of

    place = place_of(os.environ)
    if place is None:
        yield None
        return
    error = sys.stderr
    with _silent(place.rank > 0):
        if command not in MANY:
            raise UsageError(
                f"{command or 'This'} runs in one process; several ranks run "
                f"{', '.join(MANY[:-1])} and {MANY[-1]}."
            )
        group = Group(place, lambda sentence: _tell(error, sentence))
        token = _current.set(group)
        try:
            yield group
        finally:
            _current.reset(token)


def _tell(stream: TextIO, sentence: str) -> None:
    clear = "\r\x1b[K" if stream.isatty() else ""
    stream.write(f"{clear}mlx-starflow: {sentence}\n")
    stream.flush()


@contextmanager
def _silent(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with open(os.devnull, "w") as nowhere:
        before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
