"""A file of tensors, read in pieces.

Data is read when it is needed and not kept, so a checkpoint may be much larger than the memory. The
file is not memory-mapped: if another program shortened a mapped file, reading it would kill the
process; here it is an error.
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

# numpy dtypes. numpy has no bfloat16 and float8, so integers of the same size hold them.
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
MAX_EXTENT = 1 << 30  # largest range of bytes over which one tensor may be spread


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
        """The bytes [begin, end). Errors: CheckpointError, also if the file became shorter."""
        parts = []
        while begin < end:
            try:
                # One call reads at most 2 GiB.
                part = os.pread(self._file.fileno(), min(end - begin, 1 << 30), begin)
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read: {error.strerror}.") from error
            if not part:
                raise CheckpointError(
                    f"{self.path} became shorter while it was being read. Start again when the "
                    "program that writes it has finished."
                )
            parts.append(part)
            begin += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def find_last(self, pattern: bytes, begin: int) -> int:
        """The offset of the last occurrence of a pattern at or after ``begin``; -1 if none."""
        found = self.read(begin, self.size).rfind(pattern)
        return -1 if found < 0 else begin + found

    def check_unchanged(self) -> None:
        """Raise a CheckpointError if the file has changed since it was opened."""
        try:
            state = _state(self.path.stat())
        except OSError:
            state = None
        if state != self._state:
            raise CheckpointError(f"{self.path} was changed while it was being read. Start again.")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class SourceTensor:
    """A tensor in a file. Whoever creates it has checked that it is within its bytes."""

    name: str
    dtype: str  # safetensors code: "F32", "BF16", ...
    shape: tuple[int, ...]
    file: TensorFile
    begin: int  # bytes [begin, end) of the file are the tensor's storage
    end: int
    offset: int = 0  # elements from begin to the first element
    strides: tuple[int, ...] | None = None  # in elements; None = row-major
    big_endian: bool = False

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements in row-major order."""
        return self.count * ITEM_BYTES[self.dtype]

    def view(self) -> np.ndarray:
        """Read the whole tensor, in native byte order; bfloat16 and float8 as unsigned integers.
        Errors: CheckpointError."""
        dtype = self._stored_type()
        if self.count == 0:
            return np.empty(self.shape, dtype.newbyteorder("="))
        first = self.begin + self.offset * dtype.itemsize
        if self.strides is None:
            array = np.frombuffer(self.file.read(first, first + self.nbytes), dtype)
            return _native(array.reshape(self.shape))
        # The stride of an axis with one element has no meaning.
        steps = [0 if n == 1 else s for n, s in zip(self.shape, self.strides, strict=True)]
        extent = 1 + sum((n - 1) * s for n, s in zip(self.shape, steps, strict=True))
        if extent * dtype.itemsize > max(MAX_EXTENT, 4 * self.nbytes):
            raise CheckpointError(
                f"{self.file.path}: {self.name!r} has {self.nbytes} bytes, which are spread over "
                f"{extent * dtype.itemsize}. Save it with .contiguous()."
            )
        flat = np.frombuffer(self.file.read(first, first + extent * dtype.itemsize), dtype)
        strides = [s * dtype.itemsize for s in steps]
        return _native(np.lib.stride_tricks.as_strided(flat, self.shape, strides))

    def pieces(self, limit: int = PIECE_BYTES) -> Iterator[tuple[int, np.ndarray]]:
        """Read the tensor in pieces. Yields (index of the first row, rows) along the first axis, in
        native byte order and row-major.

        A piece has at most about ``limit`` bytes, but at least one row. Errors: CheckpointError.
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
