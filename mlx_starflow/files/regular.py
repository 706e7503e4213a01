"""Reading untrusted files: regular files only, up to a limit of bytes.

A path may lead to a pipe or a device, and opening or reading one of those may never end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegular(OSError):
    """The path is a directory, a pipe, a socket or a device; ``strerror`` says which."""


class TooLarge(OSError):
    """The file is larger than the limit; ``strerror`` says the limit."""


_KINDS = (
    (stat.S_ISDIR, "it is a directory"),
    (stat.S_ISFIFO, "it is a named pipe, not a file"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading bytes. Opening never blocks.

    Errors: FileNotFoundError, NotRegular, other OSError.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(os.fstat(file), path)
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raise NotRegular if the status is not that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = next((text for test, text in _KINDS if test(status.st_mode)), "it is not a file")
        raise NotRegular(0, kind, os.fspath(path))


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether the path, following links, is a regular file. False if its status cannot be read."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Errors: FileNotFoundError, NotRegular, TooLarge, other OSError.
    """
    with open_regular(path) as file:
        # Ask for the file's size and not for ``most``: Python allocates what is asked for.
        data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    if len(data) > most:
        raise TooLarge(0, f"it has more than {most} bytes", os.fspath(path))
    return data


def inside(path: Path, directory: Path) -> bool:
    """Whether a path is inside a directory, following links in both."""
    try:
        return Path(path).resolve().is_relative_to(Path(directory).resolve())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a loop of links
        return False
