"""Reading files that somebody else made: regular files only, and never more than a limit.

A path may lead to a pipe, a device or an endless stream; opening one of those could wait for ever.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegular(OSError):
    """The path leads to a directory, a pipe, a socket or a device. ``strerror`` says which."""


class TooLarge(OSError):
    """The file has more bytes than are read of its kind. ``strerror`` says how many."""


_KINDS = (
    (stat.S_ISDIR, "it is a directory"),
    (stat.S_ISFIFO, "it is a named pipe, not a file"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, opened for reading without buffering beyond Python's own.

    The open never blocks. Errors: FileNotFoundError, NotRegular, other OSError.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(os.fstat(file), path)
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    """NotRegular unless the status is that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = next((said for test, said in _KINDS if test(status.st_mode)), "it is no file")
        raise NotRegular(0, kind, os.fspath(path))


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether the path, links followed, is a regular file; False where it cannot be looked at."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Errors: FileNotFoundError, NotRegular, TooLarge, other OSError.
    """
    with open_regular(path) as file:
        # Not ``most`` at once: Python takes memory for all that is asked for.
        data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    if len(data) > most:
        raise TooLarge(0, f"it has more than {most} bytes", os.fspath(path))
    return data


def inside(path: Path, directory: Path) -> bool:
    """Whether a path, links followed, lies in a directory, links followed."""
    try:
        return Path(path).resolve().is_relative_to(Path(directory).resolve())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links that lead in a circle
        return False
