"""A short hash of a model's weights, quick enough to take at every run."""

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

    Of a file above 64 MiB, its first and last mebibyte and 62 between are read: enough to tell
    apart any two trained, cast or quantized models, and not a proof against tampering.
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
