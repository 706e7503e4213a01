"""A rank's share of a stored tensor: only its bytes are read from the file."""

from __future__ import annotations

import os
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..device.shared import Cut
from ..errors import WeightsError
from ..files.regular import open_regular
from .dtypes import CODES
from .safetensors import ITEM_BYTES, TensorInfo

_TYPES = {code: dtype for dtype, code in CODES.items()}


def read_share(path: Path, tensor: TensorInfo, cut: Cut) -> mx.array:
    """The part of a tensor that ``cut`` keeps, in the stored dtype. Errors: WeightsError if the
    file cannot be read, UsageError if the tensor cannot be cut so."""
    module, _, leaf = tensor.name.rpartition(".")
    axis, item = cut.axis(leaf), ITEM_BYTES[tensor.dtype]
    shape = list(tensor.shape)
    row = item * (shape[1] if len(shape) > 1 else 1)
    pieces: list[tuple[int, int]] = []  # byte ranges in the tensor
    if axis is None:
        pieces = [(0, tensor.end - tensor.begin)]
    else:
        ranges = cut.ranges(leaf, tensor.shape, module)
        shape[axis] = sum(end - begin for begin, end in ranges)
        for begin, end in ranges:
            if axis == 0:
                pieces.append((begin * row, end * row))
            else:
                rows = range(tensor.shape[0])
                pieces += [(r * row + begin * item, r * row + end * item) for r in rows]
    data = bytearray(sum(end - begin for begin, end in pieces))
    at = 0
    try:
        with open_regular(path) as file:
            for begin, end in pieces:
                part = memoryview(data)[at : at + end - begin]
                _read_at(file.fileno(), part, tensor.begin + begin)
                at += end - begin
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    return mx.view(mx.array(np.frombuffer(data, np.uint8)), _TYPES[tensor.dtype]).reshape(shape)


def _read_at(file: int, into: memoryview, offset: int) -> None:
    while into.nbytes:
        done = os.preadv(file, [into[: 1 << 30]], offset)
        if not done:
            raise OSError(0, "it is shorter than its header says")
        into, offset = into[done:], offset + done
