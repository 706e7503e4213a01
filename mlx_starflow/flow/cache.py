"""Keys and values of one attention layer: a buffer of fixed capacity, written in place."""

from __future__ import annotations

from typing import cast

import mlx.core as mx


class KVCache:
    """Rotated keys and values (B, kv_heads, capacity, head_dim).

    ``update`` writes rows at any place and returns all rows up to their end: what stands behind
    them is ignored, so going back is writing again at an earlier place. The write is in place
    as long as nothing else holds the old buffer.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update(self, keys: mx.array, values: mx.array, start: int) -> tuple[mx.array, mx.array]:
        self.reserve(keys)
        stop = start + keys.shape[2]
        all_keys, all_values = self.written()
        all_keys[:, :, start:stop] = keys
        all_values[:, :, start:stop] = values
        return all_keys[:, :, :stop], all_values[:, :, :stop]

    def written(self) -> tuple[mx.array, mx.array]:
        """Keys and values, where the buffers have been made."""
        return cast(mx.array, self.keys), cast(mx.array, self.values)

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
