"""A short hash of a model's weights, fast enough to compute at every run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..files.regular import open_regular
from .load import weight_files

WHOLE_BYTES = 64 << 20  # files up to this size are hashed whole
PIECE_BYTES, PIECES = 1 << 20, 64


def fingerprint(directory: Path) -> str:
    """16 hex digits over the names, sizes and contents of a component's weight files.

    Of a file larger than 64 MiB, 64 evenly spaced pieces of 1 MiB are read, the first and the last
    included. This distinguishes any two trained, cast or quantized models, but does not protect
    against tampering.
    """
    digest = hashlib.sha256()
    for path in weight_files(directory):
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{path.relative_to(directory)} {size}\n".encode())
            if size <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            for i in range(PIECES):
                file.seek((size - PIECE_BYTES) * i // (PIECES - 1))
                digest.update(file.read(PIECE_BYTES))
    return digest.hexdigest()[:16]
