"""Keys and values of one attention layer: a buffer of fixed capacity, written in place."""

from __future__ import annotations

import mlx.core as mx


class KVCache:
    """Rotated keys and values (B, kv_heads, capacity, head_dim).

    ``update`` writes rows at any place and returns all rows up to their end: what stands behind
    them is ignored, so going back is writing again at an earlier place.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update(self, keys: mx.array, values: mx.array, start: int) -> tuple[mx.array, mx.array]:
        if self.keys is None:
            b, heads, _, dim = keys.shape
            self.keys = mx.zeros((b, heads, self.capacity, dim), keys.dtype)
            self.values = mx.zeros((b, heads, self.capacity, dim), values.dtype)
        stop = start + keys.shape[2]
        self.keys[:, :, start:stop] = keys
        self.values[:, :, start:stop] = values
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def arrays(self) -> list[mx.array]:
        return [] if self.keys is None else [self.keys, self.values]
