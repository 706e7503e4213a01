"""The cache of converted models: its directory, its contents, and removing models from it."""

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

    name: str  # the name to give to ``load``
    precision: str  # "bfloat16", "4-bit", …
    path: Path
    bytes: int
    problem: str | None  # why it is incomplete; None if it is complete


def cache_directory() -> Path:
    """The cache directory: $MLX_STARFLOW_CACHE if it is set, else "mlx-starflow" in $HF_HOME,
    $XDG_CACHE_HOME or ~/.cache, the first of these that is set."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own).expanduser()
    hub = os.environ.get("HF_HOME")
    if hub:
        return Path(hub).expanduser() / "mlx-starflow"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mlx-starflow"


def cached_path(name: str, precision: str) -> Path:
    """The directory for a converted model in a precision; it need not exist."""
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
    """Delete a converted model. Returns the number of bytes freed. The downloaded files stay in the
    hub's cache."""
    # Renamed first, so that an interrupted removal leaves nothing that looks like a model.
    doomed = model.path.with_name(f".removed-{os.getpid()}-{model.path.name}")
    model.path.rename(doomed)
    shutil.rmtree(doomed)
    return model.bytes


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for ``path`` inside the ``with`` block; other processes wait for it.

    The lock files are in this program's cache, since ``path`` may be in that of another program.
    """
    locks = cache_directory() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    with open(locks / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
