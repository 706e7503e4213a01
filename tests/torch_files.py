"""Write files like those of ``torch.save``, without PyTorch; also faulty ones, for tests."""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if value < 0 or value > 0x7FFFFFFF:
        data = value.to_bytes(9, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    return b"J" + struct.pack("<i", value)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def tensor(
    key: str,
    shape: tuple[int, ...],
    storage: str = "FloatStorage",
    count: int | None = None,
    offset: int = 0,
    strides: tuple[int, ...] | None = None,
) -> bytes:
    """Pickle instructions that push one tensor."""
    count = math.prod(shape) if count is None else count
    strides = row_major(shape) if strides is None else strides
    return b"".join(
        [
            name("torch._utils", "_rebuild_tensor_v2"),
            b"((" + text("storage") + name("torch", storage) + text(key) + text("cpu"),
            number(count) + b"tQ" + number(offset),
            b"(" + b"".join(map(number, shape)) + b"t",
            b"(" + b"".join(map(number, strides)) + b"t",
            b"\x89" + name("collections", "OrderedDict") + b")RtR",
        ]
    )


def state_dict(tensors: Mapping[str, bytes]) -> bytes:
    """A complete pickle: an OrderedDict of tensors pushed by the given instructions."""
    items = b"".join(text(key) + value for key, value in tensors.items())
    return b"\x80\x02" + name("collections", "OrderedDict") + b")R(" + items + b"u."


def archive(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes],
    prefix: str = "archive",
    **extra: bytes,
) -> Path:
    """A zip as torch.save makes it: stored entries, byteorder and version beside the data."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr(f"{prefix}/data.pkl", pickled)
        file.writestr(f"{prefix}/byteorder", b"little")
        for key, data in storages.items():
            file.writestr(f"{prefix}/data/{key}", data)
        file.writestr(f"{prefix}/version", b"3\n")
        for key, data in extra.items():
            file.writestr(f"{prefix}/{key}", data)
    return path


def save(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """torch.save of a state dict of these arrays."""
    pushed = {
        key: tensor(str(i), array.shape, STORAGES[str(array.dtype)])
        for i, (key, array) in enumerate(tensors.items())
    }
    data = {str(i): np.ascontiguousarray(a).tobytes() for i, a in enumerate(tensors.values())}
    return archive(path, state_dict(pushed), data)


def save_streamed(
    path: Path | IO[bytes],
    shapes: Mapping[str, tuple[int, ...]],
    fill: Callable[[str, int], Iterable[bytes]],
) -> Path | IO[bytes]:
    """A float32 checkpoint of any size, at a path or in an open file; ``fill(name, bytes)`` yields
    each tensor's bytes."""
    pushed = {key: tensor(str(i), shape) for i, (key, shape) in enumerate(shapes.items())}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
        file.writestr("archive/data.pkl", state_dict(pushed))
        for i, (key, shape) in enumerate(shapes.items()):
            size = 4 * math.prod(shape)
            entry = zipfile.ZipInfo(f"archive/data/{i}")
            with file.open(entry, "w", force_zip64=size >= 1 << 31) as stream:
                for block in fill(key, size):
                    stream.write(block)
    return path


def plain_pickle(value: Any) -> bytes:
    """What Python's own pickle makes of a value."""
    return pickle.dumps(value, protocol=2)
