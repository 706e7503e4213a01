"""The safetensors format, read and written one tensor at a time.

A file is an 8-byte little-endian header length, a JSON header of names, dtypes, shapes and byte
ranges, and the data. The reader checks all of it. The writer reserves the place of every tensor
first, so that only the piece that is being written has to be in memory.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..files.fields import shown
from ..files.json import JSONError, parse_object
from ..files.regular import open_regular
from .sums import write_sums

ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
MAX_HEADER_BYTES = 64 << 20
MAX_HEADER_VALUES = 2_000_000
MAX_NAME = 500  # characters of a tensor's name
MAX_DIMENSIONS = 16
MAX_SHARD_BYTES = 4 << 30  # of tensors per file, as some file systems have a limit of 4 GiB
INDEX_NAME = "model.safetensors.index.json"


@dataclass(frozen=True)
class TensorInfo:
    """A stored tensor: bytes [begin, end) of its file."""

    name: str
    dtype: str  # a key of ITEM_BYTES
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class TensorPlan:
    """A tensor that will be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the tensor in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def read_header(path: Path) -> list[TensorInfo]:
    """The tensors of a safetensors file, in file order.

    Errors: WeightsError if the file is missing or not a regular file, the header is not JSON, or
    dtypes, shapes and byte ranges contradict each other or the size of the file.
    """
    header, base, size = _header(path)
    header.pop("__metadata__", None)
    tensors = [_tensor_info(path, name, entry, base, size) for name, entry in header.items()]
    tensors.sort(key=lambda t: (t.begin, t.end))
    for before, after in zip(tensors, tensors[1:], strict=False):
        if after.begin < before.end:
            raise WeightsError(
                f"{path}: the bytes of {shown(before.name)} and {shown(after.name)} overlap."
            )
    return tensors


def read_strings(path: Path) -> dict[str, str]:
    """The strings under "__metadata__" in a safetensors header; {} if there are none. Errors:
    WeightsError."""
    header, _, _ = _header(path)
    found = header.get("__metadata__") or {}
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise WeightsError(f"{path}: the safetensors header's '__metadata__' is malformed.")
    return found


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The JSON header, the offset of the data, and the size of the file, in bytes."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if len(start) < 8:
                raise WeightsError(f"{path}: {size} bytes are too few for a safetensors file.")
            (length,) = struct.unpack("<Q", start)
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise WeightsError(
                    f"{path}: its header claims {length} bytes and the file has {size}. "
                    "It is truncated or not a safetensors file; download it again."
                )
            text = file.read(length)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing. Convert or download the model again.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        header = parse_object(text, MAX_HEADER_BYTES, MAX_HEADER_VALUES)
    except JSONError as error:
        raise WeightsError(f"{path}: the safetensors header is not JSON ({error}).") from None
    return header, 8 + length, size


def _tensor_info(path: Path, name: str, entry: Any, base: int, size: int) -> TensorInfo:
    if len(name) > MAX_NAME:
        raise WeightsError(f"{path}: a tensor's name has {len(name)} characters ({shown(name)}).")
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        raise WeightsError(f"{path}: the header's entry for {name!r} is malformed.") from None
    if any(type(n) is not int or n < 0 for n in numbers) or len(shape) > MAX_DIMENSIONS:
        raise WeightsError(f"{path}: {name!r} has no valid shape or byte range.")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise WeightsError(f"{path}: {name!r} has the unsupported type {str(dtype)[:40]!r}.")
    plan = TensorPlan(name, dtype, tuple(shape))
    if end - begin != plan.nbytes:
        raise WeightsError(
            f"{path}: {name!r} of shape {plan.shape} and type {dtype} needs {plan.nbytes} bytes, "
            f"its byte range has {end - begin}."
        )
    if base + end > size:
        raise WeightsError(
            f"{path}: {name!r} ends at byte {base + end} and the file has {size}. "
            "The file is truncated; download it again."
        )
    return TensorInfo(name, dtype, plan.shape, base + begin, base + end)


class ShardWriter:
    """Writes planned tensors to DIR/model.safetensors, or to numbered shards with an index.

    Pieces of a tensor may arrive in any order; ``close`` refuses to finish while one is missing.
    """

    def __init__(
        self,
        directory: Path,
        plans: Iterable[TensorPlan],
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        self.directory = directory
        shards = _divide(list(plans), max_shard_bytes)
        names = self._names = _shard_names(len(shards))
        self._places: dict[str, tuple[int, int]] = {}  # name -> file descriptor, offset
        self._missing: dict[str, int] = {}  # name -> bytes still to come
        self._files: list[int] = []
        self.total_bytes = sum(p.nbytes for shard in shards for p in shard)
        try:
            for name, shard in zip(names, shards, strict=True):
                self._open(directory / name, shard)
        except BaseException:
            self.abort()
            raise
        if len(shards) > 1:
            self._write_index(names, shards)

    def _open(self, path: Path, shard: list[TensorPlan]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
        offset = 0
        for plan in shard:
            end = offset + plan.nbytes
            header[plan.name] = {
                "dtype": plan.dtype,
                "shape": list(plan.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._files.append(file)
        _write_at(file, struct.pack("<Q", len(text)) + text, 0)
        os.ftruncate(file, 8 + len(text) + offset)
        for plan in shard:
            if plan.name in self._places:
                raise WeightsError(f"{plan.name!r} was planned twice.")
            begin = header[plan.name]["data_offsets"][0]
            self._places[plan.name] = (file, 8 + len(text) + begin)
            self._missing[plan.name] = plan.nbytes

    def _write_index(self, names: list[str], shards: list[list[TensorPlan]]) -> None:
        where = {p.name: n for n, shard in zip(names, shards, strict=True) for p in shard}
        index = {
            "metadata": {"total_size": self.total_bytes},
            "weight_map": dict(sorted(where.items())),
        }
        (self.directory / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")

    def write(self, name: str, data: Any, offset: int = 0) -> None:
        """Write a piece (any C-contiguous buffer) at a byte offset of a planned tensor. Errors:
        WeightsError if more bytes arrive than were planned."""
        piece = memoryview(data).cast("B")
        file, begin = self._places[name]
        if piece.nbytes > self._missing[name]:
            raise WeightsError(f"{name!r}: more bytes arrived than were planned.")
        _write_at(file, piece, begin + offset)
        self._missing[name] -= piece.nbytes

    def close(self) -> None:
        """Sync the files to disk and write SHA256SUMS. Errors: WeightsError naming a tensor that
        was not written completely."""
        late = [name for name, missing in self._missing.items() if missing]
        if late:
            self.abort()
            raise WeightsError(f"{late[0]!r} was planned but not completely written.")
        for file in self._files:
            os.fsync(file)
        self.abort()
        write_sums(self.directory, self._names)

    def abort(self) -> None:
        """Close the files without checks; they stay incomplete."""
        while self._files:
            os.close(self._files.pop())


def _divide(plans: list[TensorPlan], limit: int) -> list[list[TensorPlan]]:
    shards: list[list[TensorPlan]] = [[]]
    used = 0
    for plan in plans:
        if shards[-1] and used + plan.nbytes > limit:
            shards.append([])
            used = 0
        shards[-1].append(plan)
        used += plan.nbytes
    return shards


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def _write_at(file: int, data: Any, offset: int) -> None:
    view = memoryview(data).cast("B")
    while view.nbytes:
        # One call writes at most 2 GiB on Linux, and fails above that on macOS.
        done = os.pwrite(file, view[: 1 << 30], offset)
        view, offset = view[done:], offset + done
