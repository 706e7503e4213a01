"""A file mapped into memory, and tensors that are views of it.

Nothing is copied until it is asked for, and pages that were used can be handed back to the
kernel, so a checkpoint far larger than the memory can be walked through.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_starflow.bundle.safetensors import ITEM_BYTES
from mlx_starflow.errors import CheckpointError

# numpy has no bfloat16 or float8: those are carried as integers of the same size.
CARRIERS = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "u2",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "?",
}
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
PIECE_BYTES = 32 << 20


class MappedFile:
    """A read-only mapping of a whole file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._state = _state(path)
                self.size = self._state[0]
                if self.size == 0:
                    raise CheckpointError(f"{path} is empty. Download it again.")
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error

    def check_unchanged(self) -> None:
        """Raise CheckpointError where the file was changed since it was opened."""
        if _state(self.path) != self._state:
            raise CheckpointError(f"{self.path} was changed while it was being read. Start again.")

    def release(self, begin: int, end: int) -> None:
        """Tell the kernel that bytes [begin, end) will not be needed soon."""
        page = mmap.PAGESIZE
        begin, end = begin // page * page, min(-(-end // page) * page, self.size)
        if end > begin and hasattr(self.data, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            with suppress(OSError):
                self.data.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def close(self) -> None:
        # A view that someone still holds keeps the mapping alive; it goes with the last of them.
        with suppress(BufferError):
            self.data.close()


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class SourceTensor:
    """A tensor inside a mapped file; creating one has checked that it lies within its bytes."""

    name: str
    dtype: str  # safetensors spelling: "F32", "BF16", ...
    shape: tuple[int, ...]
    file: MappedFile
    begin: int  # bytes [begin, end) of the file hold the tensor's storage
    end: int
    offset: int = 0  # elements from begin to the first number
    strides: tuple[int, ...] | None = None  # in elements; None = row-major
    big_endian: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def view(self) -> np.ndarray:
        """The numbers as an array over the map (bfloat16 and float8 as unsigned integers)."""
        item = ITEM_BYTES[self.dtype]
        dtype = np.dtype((">" if self.big_endian else "<") + CARRIERS[self.dtype])
        strides = None if self.strides is None else [s * item for s in self.strides]
        if self.count == 0:
            return np.empty(self.shape, dtype)
        first = self.begin + self.offset * item
        return np.ndarray(self.shape, dtype, self.file.data, first, strides)

    def pieces(self, limit: int = PIECE_BYTES) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) along the first axis, each a native row-major copy or view.

        A piece has about ``limit`` bytes, at least one row. Pages are released behind it.
        """
        view = self.view()
        if view.ndim == 0:
            yield 0, _native(view.reshape(1))
        elif view.size:
            row_bytes = view[0].size * view.itemsize
            rows = max(1, limit // row_bytes)
            for first in range(0, view.shape[0], rows):
                yield first, _native(view[first : first + rows])
                if self.strides is None:
                    start = self.begin + self.offset * view.itemsize + first * row_bytes
                    self.file.release(start, start + rows * row_bytes)
        self.file.release(self.begin, self.end)


def _native(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
