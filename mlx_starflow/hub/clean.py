"""Emptying the caches: incomplete files and measurements, or all converted models too.

The hub's cache is shared with other programs, so only incomplete downloads of this program are
removed from it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..bundle.check import bytes_in, problem_in_component
from .cache import cache_directory, cached_models
from .download import hub_cache
from .resumable import PARTIAL

FRESH = 3600  # seconds; a file changed more recently may belong to a running process


@dataclass(frozen=True)
class Leftover:
    """A file or directory that can be removed."""

    path: Path
    bytes: int
    why: str


def leftovers(everything: bool = False) -> list[Leftover]:
    """What a clean-up removes: incomplete downloads and conversions, and measured windows. With
    ``everything`` also complete converted models, which are converted again when needed."""
    return [*_converted(everything), *_broken(), *_downloads()]


def remove(leftover: Leftover) -> None:
    """Delete it. Errors: OSError."""
    if leftover.path.is_dir() and not leftover.path.is_symlink():
        shutil.rmtree(leftover.path)
    else:
        leftover.path.unlink(missing_ok=True)


def _converted(everything: bool) -> Iterator[Leftover]:
    for model in cached_models():
        if model.problem is not None:
            yield Leftover(model.path, model.bytes, "converted model, not complete")
        elif everything:
            yield Leftover(model.path, model.bytes, "converted model")
    components = cache_directory() / "components"
    for path in sorted(components.iterdir()) if components.is_dir() else ():
        if path.name.startswith(".") or not path.is_dir():
            continue
        if problem_in_component(path) is not None:
            yield Leftover(path, bytes_in(path), "converted component, not complete")
        elif everything:
            yield Leftover(path, bytes_in(path), "converted component")


def _broken() -> Iterator[Leftover]:
    """Hidden directories of interrupted conversions and removals, and measurements."""
    directory = cache_directory()
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        removed = path.name.startswith(".removed-")
        staged = path.name.startswith(".") and path.is_dir() and path.name != ".locks"
        if removed or (staged and _old(path)):
            yield Leftover(path, bytes_in(path), "of an interrupted conversion or removal")
        elif path.is_file() and path.suffix == ".json":
            yield Leftover(path, path.stat().st_size, "measurements, made again when needed")


def _downloads() -> Iterator[Leftover]:
    for path in sorted(hub_cache().glob(f"models--*/blobs/*{PARTIAL}")):
        if _old(path):
            yield Leftover(path, path.stat().st_size, "an interrupted download")


def _old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > FRESH
