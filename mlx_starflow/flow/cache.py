"""The KV cache of one attention layer: a buffer of fixed capacity, written in place.

In the sampling of a long clip the caches take most of the memory, so they may be quantized.
"""

from __future__ import annotations

from typing import cast

import mlx.core as mx

from ..config import FlowConfig
from ..device.activations import on_gpu
from ..errors import UsageError

# A BLAS computes the last columns of a product, where they are no multiple of its kernel's width,
# with another kernel, whose sums are rounded differently. With groups of keys, a token gets the
# same numbers here and in an exported step, which always reads the whole buffer.
GROUP = 16


class KVCache:
    """Keys (after the rotary embedding) and values, each (B, kv_heads, capacity, head_dim).

    ``update`` writes rows at any position and returns the rows up to their end; rows behind them
    are ignored. For a single row on a CPU it returns up to a multiple of GROUP rows; the caller
    masks those behind the end. To go back, write again at an earlier position. MLX writes in place
    if nothing else refers to the old buffer.
    """

    def __init__(self, capacity: int, dtype: mx.Dtype | None = None):
        """``dtype``: of the buffers; None: that of the first rows."""
        self.capacity, self.dtype = capacity, dtype
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update(self, keys: mx.array, values: mx.array, start: int) -> tuple[mx.array, mx.array]:
        """Write keys and values (B, kv_heads, n, head_dim) at rows start ... start + n - 1, and
        return all rows before start + n."""
        if self.dtype is not None:
            keys, values = keys.astype(self.dtype), values.astype(self.dtype)
        self.reserve(keys)
        stop = start + keys.shape[2]
        all_keys, all_values = self.written()
        all_keys[:, :, start:stop] = keys
        all_values[:, :, start:stop] = values
        if keys.shape[2] == 1 and not on_gpu():
            stop = min(-(-stop // GROUP) * GROUP, self.capacity)
        return all_keys[:, :, :stop], all_values[:, :, :stop]

    def written(self) -> tuple[mx.array, mx.array]:
        """The whole buffers of keys and values; only valid after ``reserve`` or ``update``."""
        return cast(mx.array, self.keys), cast(mx.array, self.values)

    def arrays(self) -> list[mx.array]:
        """The buffers, if they are allocated."""
        return [a for a in (self.keys, self.values) if a is not None]

    def reserve(self, like: mx.array) -> None:
        """Allocate the buffers, for rows like these (B, kv_heads, n, head_dim), if necessary."""
        if self.keys is None:
            b, heads, _, dim = like.shape
            self.keys = mx.zeros((b, heads, self.capacity, dim), like.dtype)
            self.values = mx.zeros((b, heads, self.capacity, dim), like.dtype)

    def fill(self, other: KVCache, rows: mx.array) -> None:
        """Copy another cache into the first rows; ``rows`` (B,) selects its batch rows."""
        keys, values = other.written()
        self.update(mx.take(keys, rows, axis=0), mx.take(values, rows, axis=0), 0)


class PackedCache(KVCache):
    """A KV cache in 8 or 4 bits, quantized in groups along a head (``mx.quantize``).

    All rows that attention reads, the newest included, have been quantized.
    """

    def __init__(self, capacity: int, bits: int):
        super().__init__(capacity)
        self.bits = bits
        self._packed: list[list[mx.array]] = []  # for keys and values: weights, scales, biases
        self._group, self._kind = 0, mx.float32

    def update(self, keys: mx.array, values: mx.array, start: int) -> tuple[mx.array, mx.array]:
        self.reserve(keys)
        stop = start + keys.shape[2]
        found = []
        for buffers, rows in zip(self._packed, (keys, values), strict=True):
            packed = mx.quantize(rows.astype(self._kind), self._group, self.bits)
            for buffer, part in zip(buffers, packed, strict=True):
                buffer[:, :, start:stop] = part
            numbers, scales, biases = (buffer[:, :, :stop] for buffer in buffers)
            group, bits = self._group, self.bits
            found.append(mx.dequantize(numbers, scales, biases, group_size=group, bits=bits))
        return found[0], found[1]

    def arrays(self) -> list[mx.array]:
        return [buffer for buffers in self._packed for buffer in buffers]

    def reserve(self, like: mx.array) -> None:
        if self._packed:
            return
        dim = like.shape[3]
        self._group = group_of(dim)
        self._kind = mx.float16 if like.dtype == mx.float32 else like.dtype
        rows = mx.zeros((*like.shape[:2], self.capacity, dim), self._kind)
        # Quantized zeros have the right dtypes and shapes.
        self._packed = [list(mx.quantize(rows, self._group, self.bits)) for _ in range(2)]


def group_of(head_dim: int) -> int:
    """Elements that share a scale. Errors: UsageError if no group size divides a head."""
    for group in (64, 32):
        if head_dim % group == 0:
            return group
    raise UsageError(
        f"kv_bits 8 and 4 need heads of a multiple of 32 numbers; this model's have {head_dim}."
    )


def packings(flow: FlowConfig) -> tuple[int, ...]:
    """The ``kv_bits`` that the heads of a flow allow, most first."""
    narrow = any(block.layers and block.head_dim % 32 for block in flow.blocks)
    return (16,) if narrow else (16, 8, 4)


def make_cache(capacity: int, bits: int | None, kind: mx.Dtype) -> KVCache:
    """A cache for keys and values of dtype ``kind``. ``bits``: 16, 8 or 4; None: that dtype."""
    if bits in (8, 4):
        return PackedCache(capacity, bits)
    if bits == 16 and kind == mx.float32:
        return KVCache(capacity, mx.float16)
    return KVCache(capacity)
