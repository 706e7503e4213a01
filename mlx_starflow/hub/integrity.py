"""Hashes of model files, checked once per change of a file.

In the hub's cache the name of a file is its hash (SHA-256 for large files, git's SHA-1 for small
ones); converted components have a SHA256SUMS. Checked files are listed with size and modification
time in ``verified.json`` of the cache, so that 15 GB need not be hashed at every start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from ..bundle.load import weight_files
from ..bundle.sums import read_sums
from ..errors import ConfigError, WeightsError
from ..files.json import read_json
from ..files.regular import open_regular
from .cache import cache_directory, locked

FILE = "verified.json"
MAX_KNOWN = 5000  # most files in the list
CHUNK = 4 << 20
_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


class Digest:
    """Computes the hash of a file's content, to compare it with an expected one."""

    def __init__(self, promised: str, size: int) -> None:
        """promised: the expected hash; 64 hex digits mean SHA-256, 40 git's SHA-1, and with any
        other text every content fits. size: of the file in bytes."""
        self.promised, self.name, self._hash = promised, "", None
        if _SHA256.fullmatch(promised):
            self.name, self._hash = "SHA-256", hashlib.sha256()
        elif _GIT.fullmatch(promised):
            self.name, self._hash = "SHA-1", hashlib.sha1(b"blob %d\0" % size)

    def update(self, data: bytes) -> None:
        """Add the next bytes of the file."""
        if self._hash is not None:
            self._hash.update(data)

    def fits(self) -> bool:
        """Whether the bytes added so far have the expected hash."""
        return self._hash is None or self._hash.hexdigest() == self.promised


def blob_is_whole(path: Path) -> bool:
    """Whether a file of the hub's cache, following links, has the hash in its name."""
    try:
        blob = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    if blob.parent.name != "blobs":  # a copy, whose name is not its hash
        return True
    return file_fits(blob, blob.name)


def check_component(directory: Path) -> None:
    """Raise a WeightsError if a weight file of a component no longer has its original hash."""
    sums = read_sums(directory)
    for path in weight_files(directory):
        promised = sums.get(path.name)
        if promised is not None:
            whole = file_fits(path, promised)
        else:
            whole = blob_is_whole(path)
        if not whole:
            raise WeightsError(
                f"{path} has changed since it was written: its hash no longer matches. Convert or "
                "download the model again."
            )


def file_fits(path: Path, promised: str) -> bool:
    """Whether a file has the expected hash. It is read only if it has changed since the last
    successful check."""
    state = _state(path)
    if state is None:
        return False
    if _known().get(str(path)) == [*state, promised]:
        return True
    digest = Digest(promised, state[0])
    with open_regular(path) as file:
        for piece in iter(lambda: file.read(CHUNK), b""):
            digest.update(piece)
    if not digest.fits() or _state(path) != state:
        return False
    remember(path, promised)
    return True


def remember(path: Path, promised: str | None = None) -> None:
    """Store that a file was checked. ``promised``: its hash; None: the hash in its name."""
    state = _state(path)
    if state is None:
        return
    target = cache_directory() / FILE
    try:
        with locked(target):
            known = {k: v for k, v in _known().items() if k != str(path)}
            known = dict(list(known.items())[-MAX_KNOWN:])
            known[str(path)] = [*state, promised or path.name]
            partial = target.with_name(f"{FILE}.{os.getpid()}.partial")
            partial.write_text(json.dumps(known), encoding="utf-8")
            partial.replace(target)
    except OSError:
        return  # the file is hashed again next time


def _state(path: Path) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _known() -> dict[str, Any]:
    try:
        known = read_json(cache_directory() / FILE)
    except (OSError, ConfigError):
        return {}
    return known if isinstance(known, dict) else {}
