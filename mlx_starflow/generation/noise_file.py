"""Noise files, written by ``encode`` and read by ``decode`` and ``generate --noise``; and noise
stored in the settings of a picture.

Files are not trusted: the header is checked against the size of the file before data is read.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np

from ..bundle.safetensors import TensorInfo, read_header, read_strings
from ..errors import UsageError, WeightsError
from ..files.fields import Fields
from ..files.json import JSONError, parse_object
from ..files.regular import NotRegular, open_regular
from ..pictures.arrays import write_whole

MAX_BYTES = 256 << 20  # largest noise that is read
MAX_NPY_HEADER = 10_000  # bytes
STORED_BYTES = 1 << 20  # given noise up to this size is stored in the picture
_KEY = "mlx-starflow"
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def write_noise(path: Path, settings: dict[str, Any], **arrays: mx.array) -> Path:
    """Write arrays (one of them named "noise") and settings as a .safetensors file. Returns the
    path that was written: an existing file is kept, and a free name is taken."""
    about = {"format": "mlx", _KEY: json.dumps(settings)}
    content = io.BytesIO()
    mx.save_safetensors(content, arrays, about)
    return write_whole(path, lambda file: file.write(content.getbuffer()), overwrite=False)


def noise_settings(path: Path) -> dict[str, Any]:
    """The settings stored by ``write_noise``; {} if another program wrote the file. The types of
    the settings that ``encode`` writes are checked. Errors: UsageError."""
    if path.suffix != ".safetensors":
        return {}
    try:
        fields = Fields(
            parse_object(read_strings(path).get(_KEY, "{}")), f"{path}: its settings", UsageError
        )
    except (WeightsError, JSONError) as error:
        raise UsageError(f"{path}: this file cannot be read ({error}).") from None
    for name in ("source", "prompt", "model", "weights", "aspect_ratio"):
        fields.text(name, None)
    for name in ("guidance", "round_trip_error", "largest_latent"):
        fields.number(name, None)
    for name in ("noise_seed", "frames", "fps", "window", "context_frames"):
        fields.whole(name, None)
    return {name: value for name, value in fields.data.items() if value is not None}


def read_noise(path: Path) -> np.ndarray:
    """Noise (B, h, w, c) float32 from a .npy file, or from "noise" in a .safetensors file; for
    clips (B, N, h, w, c).

    Errors: UsageError for a file that is missing, damaged, too large, or has other content.
    """
    try:
        if path.suffix not in (".npy", ".safetensors"):
            raise UsageError(f"{path}: expected a name ending in .npy or .safetensors.")
        if not path.exists():
            raise FileNotFoundError
        array = _read_npy(path) if path.suffix == ".npy" else _read_safetensors(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file.") from None
    except (UsageError, WeightsError) as error:
        raise UsageError(str(error)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, NotRegular) else str(error)[:200]
        raise UsageError(f"{path}: this file cannot be read ({reason}).") from None
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite: an error
        array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise UsageError(f"{path}: holds NaN, infinity, or a number that float32 cannot hold.")
    return array[None] if array.ndim == 3 else array


def noise_record(file: str, noise: np.ndarray) -> dict[str, Any]:
    """A record of given noise for a picture's settings: file name, shape and hash, and the data
    itself up to STORED_BYTES."""
    raw = np.ascontiguousarray(noise, dtype="<f4").tobytes()
    record = {
        "file": file,
        "shape": list(noise.shape),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    if len(raw) <= STORED_BYTES:
        record["data"] = base64.b64encode(raw).decode()
    return record


def recorded_noise(record: Any, where: str) -> np.ndarray:
    """The noise (B, h, w, c) or (B, N, h, w, c) float32 of a ``noise_record``, from the record or
    from its file.

    ``where``: the picture, for messages. Errors: UsageError.
    """
    fields = Fields(record, where, UsageError, "noise")
    if "data" in fields:
        shape = fields.wholes("shape", low=1, items=5)
        check_noise_shape(shape, f"{where}: the noise in it")
        try:
            raw = base64.b64decode(fields.text("data", most=2 * STORED_BYTES), validate=True)
        except ValueError:
            raise UsageError(f"{where}: noise.data is not base64.") from None
        if len(raw) != 4 * math.prod(shape):
            raise UsageError(
                f"{where}: the noise of shape {shape} needs {4 * math.prod(shape)} bytes, but "
                f"{len(raw)} are stored."
            )
        array = np.frombuffer(raw, "<f4").reshape((1, *shape) if len(shape) == 3 else shape)
        if not np.isfinite(array).all():
            raise UsageError(f"{where}: the noise in it holds NaN or infinity.")
        return array
    file, digest = fields.text("file", most=4096), fields.text("sha256", most=64)
    array = read_noise(Path(file))
    if hashlib.sha256(array.astype("<f4").tobytes()).hexdigest() != digest:
        raise UsageError(
            f"{file} has changed since this picture was made from it; give the original file with "
            "--noise."
        )
    return array


def check_noise_shape(shape: tuple[int, ...], path: str | Path) -> None:
    """Raise a UsageError unless a shape is (B, h, w, c), (h, w, c) or, for clips,
    (B, N, h, w, c), not empty and not too large."""
    if len(shape) not in (3, 4, 5) or 0 in shape:
        raise UsageError(
            f"{path}: has shape {shape}; expected (B, h, w, c) or (h, w, c), for clips "
            "(B, N, h, w, c)."
        )
    if math.prod(shape) * 4 > MAX_BYTES:
        raise UsageError(f"{path}: has shape {shape}, which is more than {MAX_BYTES >> 20} MiB.")


def _read_npy(path: Path) -> np.ndarray:
    with open_regular(path) as file:
        shape, columns, dtype = _npy_header(file, path)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise UsageError(f"{path}: holds {dtype}; expected floating-point numbers.")
        check_noise_shape(shape, path)
        needed = math.prod(shape) * dtype.itemsize
        data = file.read(needed + 1)
    if len(data) != needed:
        raise UsageError(
            f"{path}: an array of its shape {shape} needs {needed} bytes, but the file has "
            f"{'more' if len(data) > needed else len(data)}. Is it complete?"
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F" if columns else "C")


def _npy_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the array is in Fortran order, and dtype. numpy parses the header as a Python
    literal, which may raise errors of many kinds."""
    start = file.read(12)
    version, length = start[6:8], int.from_bytes(start[8:10], "little")
    begin = 10
    if version in (b"\x02\x00", b"\x03\x00"):
        length, begin = int.from_bytes(start[8:12], "little"), 12
    elif version != b"\x01\x00":
        length = MAX_NPY_HEADER + 1
    if start[:6] != b"\x93NUMPY" or len(start) < 12 or length > MAX_NPY_HEADER:
        raise UsageError(f"{path}: this is not a .npy file of numbers.")
    header = io.BytesIO(start[8:] + file.read(max(length - 12 + begin, 0)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if begin == 10:
                return np.lib.format.read_array_header_1_0(header)
            return np.lib.format.read_array_header_2_0(header)
    except Exception as error:
        raise UsageError(
            f"{path}: this is not a .npy file of numbers ({type(error).__name__})."
        ) from None


def _read_safetensors(path: Path) -> np.ndarray:
    tensors = {tensor.name: tensor for tensor in read_header(path)}
    if "noise" not in tensors and len(tensors) != 1:
        held = ", ".join(ascii(name[:40]) for name in list(tensors)[:10]) or "nothing"
        raise UsageError(f'{path}: holds {held}; expected an array "noise".')
    tensor: TensorInfo = tensors.get("noise") or next(iter(tensors.values()))
    if tensor.dtype not in _FLOATS:
        raise UsageError(f"{path}: holds {tensor.dtype}; expected floating-point numbers.")
    check_noise_shape(tensor.shape, path)
    with open_regular(path) as file:
        file.seek(tensor.begin)
        data = file.read(tensor.end - tensor.begin)
    array = np.frombuffer(data, _FLOATS[tensor.dtype])
    if tensor.dtype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(tensor.shape)
