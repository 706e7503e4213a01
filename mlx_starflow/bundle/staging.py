"""Working directories beside a model that is being written: it appears only when it is complete."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OLD = "replaced"  # name of a target inside the directory in which it is kept while it is replaced


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A working directory beside ``target`` that becomes ``target`` at the end of the block.

    After an error it is removed. Those that killed processes have left are removed by the next call
    for the same target. Errors: OSError.
    """
    target = Path(os.path.abspath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target.parent):
        clear_up(target)
    with work_directory(target) as work:
        yield work
        os.replace(work, target)


@contextmanager
def work_directory(target: Path) -> Iterator[Path]:
    """A locked working directory beside ``target``, removed at the end of the block. The lock says
    that the process is alive. Errors: OSError."""
    work, lock = partial_name(target, "work"), None
    try:  # from here on, an interrupt may occur at any moment
        with alone(target.parent):  # no clear_up sees it before its lock is held
            work.mkdir()
            lock = os.open(work, os.O_RDONLY)
            _lock(lock)
        yield work
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def alone(parent: Path) -> Iterator[None]:
    """Hold the lock of a directory, if the file system supports it. Errors: OSError."""
    lock = os.open(parent, os.O_RDONLY)
    try:
        _lock(lock)
        yield
    finally:
        os.close(lock)


def _lock(file: int) -> None:
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX)


def partial_name(target: Path, kind: str) -> Path:
    """A new name for a temporary directory of a target; ``kind``: "work" or "old"."""
    return target.parent / f".{target.name}.partial-{kind}-{secrets.token_hex(4)}"


def clear_up(target: Path) -> None:
    """Remove the temporary directories of processes that have ended; their lock is free.

    The caller holds the lock of the parent directory (``alone``).
    If a process was killed while it replaced the target, the old target is put back.
    """
    for path in target.parent.glob(f".{glob.escape(target.name)}.partial-*"):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (path / OLD).is_dir() and not os.path.lexists(target):
                    os.rename(path / OLD, target)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
