"""Writing one tensor of the source to the bundle: cast, quantized or transposed, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_starflow.bundle.dtypes import CODES
from mlx_starflow.bundle.load import array_bytes
from mlx_starflow.bundle.quantize import GROUP_SIZE
from mlx_starflow.bundle.safetensors import ITEM_BYTES, ShardWriter, TensorPlan
from mlx_starflow.errors import WeightsError

from ..read.tensor_file import SourceTensor

_TYPES = {code: dtype for dtype, code in CODES.items()}


@dataclass(frozen=True)
class Store:
    """A tensor of the source, and how it is stored in the bundle."""

    source: SourceTensor
    name: str
    shape: tuple[int, ...]
    dtype: str  # "F32" | "F16" | "BF16": of the elements, or of the scales if quantized
    bits: int | None = None  # quantized to so many bits; None: not quantized
    # The order of the source's axes if they are transposed; ``shape`` then has the same numbers,
    # and axes may be merged or dropped. None: not transposed.
    axes: tuple[int, ...] | None = None

    @property
    def module(self) -> str:
        """The path of the module that a weight belongs to."""
        return self.name.removesuffix(".weight")

    def plans(self) -> list[TensorPlan]:
        """The tensors in the file: one, or three if it is quantized."""
        if self.bits is None:
            return [TensorPlan(self.name, self.dtype, self.shape)]
        rows, columns = self.shape
        groups = (rows, columns // GROUP_SIZE)
        return [
            TensorPlan(self.name, "U32", (rows, columns * self.bits // 32)),
            TensorPlan(self.module + ".scales", self.dtype, groups),
            TensorPlan(self.module + ".biases", self.dtype, groups),
        ]

    def write(self, writer: ShardWriter) -> Iterator[int]:
        """Write the tensor in pieces. Yields the source bytes of each piece.

        Errors: WeightsError for NaN, infinity, or a number that is too large for float16.
        """
        if self.axes is not None:
            values = self.checked(np.ascontiguousarray(self.source.view().transpose(self.axes)))
            writer.write(self.name, array_bytes(self.cast(values)))
            yield values.nbytes
            return
        item = ITEM_BYTES[self.dtype]
        for row, piece in self.source.pieces():
            values = self.checked(piece)
            if self.bits is not None:
                self.write_quantized(writer, row, values)
            else:
                offset = row * (piece.size // piece.shape[0]) * item
                writer.write(self.name, self.bytes(values), offset)
            yield piece.nbytes

    def write_quantized(self, writer: ShardWriter, row: int, values: np.ndarray) -> None:
        """Quantize and write rows (n, columns), the first of which has the index ``row``."""
        # A group is within one row, so rows can be quantized separately.
        rows = mx.quantize(self.cast(values), GROUP_SIZE, self.bits)
        mx.eval(*rows)
        for plan, part in zip(self.plans(), rows, strict=True):
            row_bytes = plan.nbytes // plan.shape[0]
            writer.write(plan.name, array_bytes(part), row * row_bytes)

    def bytes(self, values: np.ndarray) -> memoryview:
        """The values in the dtype of the bundle, as bytes."""
        if values.dtype != np.uint16 and values.dtype == _numpy_type(self.dtype):
            return values.reshape(-1).data.cast("B")
        return array_bytes(self.cast(values))

    def checked(self, values: np.ndarray) -> np.ndarray:
        """The values in a dtype that MLX has; bfloat16 stays as unsigned integers. Errors:
        WeightsError for NaN and infinity."""
        code = self.source.dtype
        if code.startswith("F8"):
            values = _FLOAT8[code][values]
        elif code == "F64":
            with np.errstate(over="ignore"):  # too large numbers become infinite: an error
                values = values.astype(np.float32)
        if values.dtype == np.uint16:
            finite = not ((values & 0x7F80) == 0x7F80).any()
        else:
            finite = np.isfinite(values).all()
        if not finite:
            raise WeightsError(
                f"{self.source.file.path}: {self.source.name!r} holds NaN or infinity. "
                "The checkpoint is damaged or its training failed; it was not converted."
            )
        return values

    def cast(self, values: np.ndarray) -> mx.array:
        """The values in the dtype of the bundle. Errors: WeightsError if float16 is too small."""
        array = mx.array(values)
        if values.dtype == np.uint16:
            array = array.view(mx.bfloat16)
        array = array.astype(_TYPES[self.dtype])
        if self.dtype == "F16" and not mx.isfinite(array).all().item():
            raise WeightsError(
                f"{self.source.file.path}: {self.source.name!r} holds numbers that are too large "
                "for float16 (more than 65504). Use --dtype bfloat16."
            )
        return array


def _numpy_type(code: str) -> np.dtype | None:
    types: dict[str, np.dtype] = {"F32": np.dtype("f4"), "F16": np.dtype("f2")}
    return types.get(code)


def _float8(exponent_bits: int, mantissa_bits: int, bias: int, infinities: bool) -> np.ndarray:
    """The 256 values of a float8 dtype, as float32."""
    code = np.arange(256)
    sign = np.where(code & 0x80, -1.0, 1.0)
    exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    normal = (1 + mantissa) * 2.0 ** (exponent - bias)
    value = sign * np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), normal)
    if infinities:  # as in IEEE 754, the largest exponent means infinity or NaN
        value[exponent == (1 << exponent_bits) - 1] = np.nan
    else:  # e4m3fn: only the two codes with all bits set are NaN
        value[(code & 0x7F) == 0x7F] = np.nan
    return value.astype(np.float32)


_FLOAT8 = {"F8_E4M3": _float8(4, 3, 7, False), "F8_E5M2": _float8(5, 2, 15, True)}
