"""Converted models on this disk: where they are kept, which are there, and removing them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..bundle.check import bytes_in, problem_in_bundle

VARIABLE = "MLX_STARFLOW_CACHE"


@dataclass(frozen=True)
class CachedModel:
    """A converted model in the cache."""

    name: str  # as it is asked for
    precision: str  # "bfloat16", "4-bit", …
    path: Path
    bytes: int
    problem: str | None  # why it is not complete; None if it is


def cache_directory() -> Path:
    """$MLX_STARFLOW_CACHE, else mlx-starflow beside the hub's own cache: in $HF_HOME if that is
    set, else in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own).expanduser()
    hub = os.environ.get("HF_HOME")
    if hub:
        return Path(hub).expanduser() / "mlx-starflow"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mlx-starflow"


def cached_path(name: str, precision: str) -> Path:
    """Where the converted copy of a model in a precision is or will be."""
    return cache_directory() / f"{name.replace('/', '--')}@{precision}"


def cached_models() -> list[CachedModel]:
    """All converted models in the cache, complete or not."""
    directory = cache_directory()
    if not directory.is_dir():
        return []
    found = []
    for path in sorted(directory.iterdir()):
        name, mark, precision = path.name.rpartition("@")
        if not path.is_dir() or not mark or name.startswith("."):
            continue
        problem = problem_in_bundle(path)
        found.append(CachedModel(name.replace("--", "/"), precision, path, bytes_in(path), problem))
    return found


def remove_cached(model: CachedModel) -> int:
    """Delete a converted copy; the bytes that were freed. The files it was made from stay in the
    hub's cache."""
    # Renamed first: an interrupted removal never leaves something that looks like a model.
    doomed = model.path.with_name(f".removed-{os.getpid()}-{model.path.name}")
    model.path.rename(doomed)
    shutil.rmtree(doomed)
    return model.bytes


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time makes the file or directory at ``path``; the others wait, then find it.

    The locks are in a place of their own: ``path`` may be in another program's cache.
    """
    locks = cache_directory() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    with open(locks / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
