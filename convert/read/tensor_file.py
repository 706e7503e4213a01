"""A file of tensors, read piece by piece.

Nothing is read until it is asked for, and nothing is kept, so a checkpoint far larger than the
memory can be walked through. The file is not mapped: where another program cuts a mapped file off,
reading it kills the process, and here it is an error.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_starflow.bundle.safetensors import ITEM_BYTES
from mlx_starflow.errors import CheckpointError
from mlx_starflow.files.regular import open_regular

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
MAX_EXTENT = 1 << 30  # bytes that the numbers of one tensor may be spread over


class TensorFile:
    """A regular file, opened once and read in pieces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open_regular(path)
            self._state = _state(os.fstat(self._file.fileno()))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
        self.size = self._state[0]
        self.checksums: list[tuple[int, int, int, str]] = []  # begin, end, CRC-32, name
        if self.size == 0:
            self.close()
            raise CheckpointError(f"{path} is empty. Download it again.")

    def read(self, begin: int, end: int) -> bytes:
        """The bytes [begin, end). CheckpointError where the file has become shorter."""
        parts = []
        while begin < end:
            try:
                # One call reads at most 2 GiB.
                part = os.pread(self._file.fileno(), min(end - begin, 1 << 30), begin)
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read: {error.strerror}.") from error
            if not part:
                raise CheckpointError(
                    f"{self.path} became shorter while it was being read. Start again when "
                    "whatever writes it has finished."
                )
            parts.append(part)
            begin += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def find_last(self, pattern: bytes, begin: int) -> int:
        """Where a pattern last stands from ``begin`` on, -1 if nowhere."""
        found = self.read(begin, self.size).rfind(pattern)
        return -1 if found < 0 else begin + found

    def check_unchanged(self) -> None:
        """Raise CheckpointError where the file was changed since it was opened."""
        try:
            state = _state(self.path.stat())
        except OSError:
            state = None
        if state != self._state:
            raise CheckpointError(f"{self.path} was changed while it was being read. Start again.")

    def close(self) -> None:
        self._file.close()


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class SourceTensor:
    """A tensor inside a file; creating one has checked that it lies within its bytes."""

    name: str
    dtype: str  # safetensors spelling: "F32", "BF16", ...
    shape: tuple[int, ...]
    file: TensorFile
    begin: int  # bytes [begin, end) of the file hold the tensor's storage
    end: int
    offset: int = 0  # elements from begin to the first number
    strides: tuple[int, ...] | None = None  # in elements; None = row-major
    big_endian: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers, each counted once however they are stored."""
        return self.count * ITEM_BYTES[self.dtype]

    def view(self) -> np.ndarray:
        """All numbers, read now, in native byte order (bfloat16 and float8 as unsigned integers).
        Errors: CheckpointError."""
        dtype = self._stored_type()
        if self.count == 0:
            return np.empty(self.shape, dtype.newbyteorder("="))
        first = self.begin + self.offset * dtype.itemsize
        if self.strides is None:
            array = np.frombuffer(self.file.read(first, first + self.nbytes), dtype)
            return _native(array.reshape(self.shape))
        # Along an axis of one element nothing is stepped over, whatever its stride says.
        steps = [0 if n == 1 else s for n, s in zip(self.shape, self.strides, strict=True)]
        extent = 1 + sum((n - 1) * s for n, s in zip(self.shape, steps, strict=True))
        if extent * dtype.itemsize > max(MAX_EXTENT, 4 * self.nbytes):
            raise CheckpointError(
                f"{self.file.path}: {self.name!r} takes {self.nbytes} bytes, spread over "
                f"{extent * dtype.itemsize}. Save it with .contiguous()."
            )
        flat = np.frombuffer(self.file.read(first, first + extent * dtype.itemsize), dtype)
        strides = [s * dtype.itemsize for s in steps]
        return _native(np.lib.stride_tricks.as_strided(flat, self.shape, strides))

    def pieces(self, limit: int = PIECE_BYTES) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) along the first axis, each native and row-major.

        A piece has about ``limit`` bytes, at least one row. Errors: CheckpointError.
        """
        if not self.shape:
            yield 0, self.view().reshape(1)
            return
        if self.count == 0:
            return
        row_bytes = self.nbytes // self.shape[0]
        rows = max(1, limit // row_bytes)
        if self.strides is not None:
            view = self.view()
            for first in range(0, self.shape[0], rows):
                yield first, np.ascontiguousarray(view[first : first + rows])
            return
        dtype = self._stored_type()
        start = self.begin + self.offset * dtype.itemsize
        for first in range(0, self.shape[0], rows):
            last = min(first + rows, self.shape[0])
            data = self.file.read(start + first * row_bytes, start + last * row_bytes)
            yield first, _native(np.frombuffer(data, dtype).reshape(-1, *self.shape[1:]))

    def _stored_type(self) -> np.dtype:
        return np.dtype((">" if self.big_endian else "<") + CARRIERS[self.dtype])


def _native(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")
