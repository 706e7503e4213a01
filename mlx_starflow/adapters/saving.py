"""Atomic writing of arrays and JSON: a file is written completely or not at all."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx

from ..bundle.dtypes import CODES
from ..bundle.load import array_bytes
from ..pictures.arrays import write_whole


def write_arrays(path: Path, arrays: dict[str, mx.array], about: dict[str, str]) -> Path:
    """Write a safetensors file, one array at a time; replaces an existing file. ``about``: strings
    for the metadata in its header. Errors: ImageError if the disk is full or the path cannot be
    written; an existing file is then unchanged."""
    mx.eval(arrays)
    header: dict[str, Any] = {"__metadata__": {"format": "mlx", **about}}
    offset = 0
    for name, array in sorted(arrays.items()):
        entry = {"dtype": CODES[array.dtype], "shape": list(array.shape)}
        header[name] = {**entry, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(arrays):
            file.write(array_bytes(arrays[name]))

    return write_whole(path, write)


def write_object(path: Path, data: dict[str, Any]) -> Path:
    """Write a JSON object; replaces an existing file. Errors: ImageError."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return write_whole(path, lambda file: file.write(text.encode()))
