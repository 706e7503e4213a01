"""The KV cache of one attention layer: a buffer of fixed capacity, written in place."""

from __future__ import annotations

from typing import cast

import mlx.core as mx


class KVCache:
    """Keys (after the rotary embedding) and values, each (B, kv_heads, capacity, head_dim).

    ``update`` writes rows at any position and returns the rows up to their end; rows behind them
    are ignored. To go back, write again at an earlier position. MLX writes in place if nothing
    else refers to the old buffer.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update(self, keys: mx.array, values: mx.array, start: int) -> tuple[mx.array, mx.array]:
        """Write keys and values (B, kv_heads, n, head_dim) at rows start ... start + n - 1, and
        return all rows before start + n."""
        self.reserve(keys)
        stop = start + keys.shape[2]
        all_keys, all_values = self.written()
        all_keys[:, :, start:stop] = keys
        all_values[:, :, start:stop] = values
        return all_keys[:, :, :stop], all_values[:, :, :stop]

    def written(self) -> tuple[mx.array, mx.array]:
        """The whole buffers of keys and values; only valid after ``reserve`` or ``update``."""
        return cast(mx.array, self.keys), cast(mx.array, self.values)

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
