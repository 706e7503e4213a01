"""Keys and values of one attention layer: a buffer of fixed capacity, written in place.

Those of a long clip are most of what its sampling keeps, so they may be kept in fewer bits.
"""

from __future__ import annotations

from typing import cast

import mlx.core as mx

from ..errors import UsageError


class KVCache:
    """Rotated keys and values (B, kv_heads, capacity, head_dim).

    ``update`` writes rows at any place and returns all rows up to their end: what stands behind
    them is ignored, so going back is writing again at an earlier place. The write is in place
    as long as nothing else holds the old buffer.
    """

    def __init__(self, capacity: int, dtype: mx.Dtype | None = None):
        """``dtype``: that they are kept in, None: as they come."""
        self.capacity, self.dtype = capacity, dtype
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update(self, keys: mx.array, values: mx.array, start: int) -> tuple[mx.array, mx.array]:
        if self.dtype is not None:
            keys, values = keys.astype(self.dtype), values.astype(self.dtype)
        self.reserve(keys)
        stop = start + keys.shape[2]
        all_keys, all_values = self.written()
        all_keys[:, :, start:stop] = keys
        all_values[:, :, start:stop] = values
        return all_keys[:, :, :stop], all_values[:, :, :stop]

    def written(self) -> tuple[mx.array, mx.array]:
        """Keys and values, where the buffers have been made."""
        return cast(mx.array, self.keys), cast(mx.array, self.values)

    def arrays(self) -> list[mx.array]:
        """The buffers, where they have been made."""
        return [a for a in (self.keys, self.values) if a is not None]

    def reserve(self, like: mx.array) -> None:
        """Make the buffers, for rows like these (B, kv_heads, n, head_dim), if there are none."""
        if self.keys is None:
            b, heads, _, dim = like.shape
            self.keys = mx.zeros((b, heads, self.capacity, dim), like.dtype)
            self.values = mx.zeros((b, heads, self.capacity, dim), like.dtype)

    def fill(self, other: KVCache, rows: mx.array) -> None:
        """Begin with what another cache holds, its rows chosen and repeated by ``rows`` (B,)."""
        keys, values = other.written()
        self.update(mx.take(keys, rows, axis=0), mx.take(values, rows, axis=0), 0)


class PackedCache(KVCache):
    """The same with keys and values in 8 or 4 bits, affine in groups along a head (mx.quantize).

    What attention sees, the newest rows included, went through these bits.
    """

    def __init__(self, capacity: int, bits: int):
        super().__init__(capacity)
        self.bits = bits
        self._packed: list[list[mx.array]] = []  # of keys and of values: numbers, scales, biases
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
        # Zeros that are quantized, so that a buffer has its type and shape by construction.
        self._packed = [list(mx.quantize(rows, self._group, self.bits)) for _ in range(2)]


def group_of(head_dim: int) -> int:
    """Numbers that share a scale. Errors: UsageError where no group divides a head."""
    for group in (64, 32):
        if head_dim % group == 0:
            return group
    raise UsageError(
        f"kv_bits 8 and 4 need heads of a multiple of 32 numbers; this model's have {head_dim}."
    )


def make_cache(capacity: int, bits: int | None, kind: mx.Dtype) -> KVCache:
    """A cache for keys and values of type ``kind``; ``bits``: 16, 8 or 4, None: that type."""
    if bits in (8, 4):
        return PackedCache(capacity, bits)
    if bits == 16 and kind == mx.float32:
        return KVCache(capacity, mx.float16)
    return KVCache(capacity)


class FixedView:
    """A cache inside a compiled step: the place is an array, the number of keys is fixed.

    ``update`` returns the first ``visible`` rows; a mask has to hide those that do not count.
    """

    def __init__(self, keys: mx.array, values: mx.array, visible: int):
        self.keys, self.values, self.visible = keys, values, visible

    def update(
        self, keys: mx.array, values: mx.array, start: mx.array
    ) -> tuple[mx.array, mx.array]:
        self.keys = mx.slice_update(self.keys, keys, start, axes=(2,))
        self.values = mx.slice_update(self.values, values, start, axes=(2,))
        return self.keys[:, :, : self.visible], self.values[:, :, : self.visible]
