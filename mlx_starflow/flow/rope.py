"""Rotary positions for angles that are given as a table: two axes and text do not fit one
frequency vector, so the table of cosines and sines is made once per grid."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines (S, head_dim / 2) of S places in a sequence, and which numbers of a
    head form a pair: neighbours (x_2k, x_2k+1) or halves (x_k, x_k+head_dim/2)."""

    cos: mx.array
    sin: mx.array
    halves: bool

    def rows(self, start: int, stop: int) -> Rotation:
        return Rotation(self.cos[start:stop], self.sin[start:stop], self.halves)


def rotation(angles: mx.array, halves: bool) -> Rotation:
    return Rotation(mx.cos(angles), mx.sin(angles), halves)


def rotate(x: mx.array, r: Rotation) -> mx.array:
    """Rotate x (B, heads, S, head_dim) by the S rows of ``r``; computed in float32."""
    shape, dtype = x.shape, x.dtype
    if r.halves:
        first, second = mx.split(x.astype(mx.float32), 2, axis=-1)
        rotated = [first * r.cos - second * r.sin, second * r.cos + first * r.sin]
        return mx.concatenate(rotated, axis=-1).astype(dtype)
    pairs = x.astype(mx.float32).reshape(*shape[:-1], shape[-1] // 2, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    rotated = [first * r.cos - second * r.sin, second * r.cos + first * r.sin]
    return mx.stack(rotated, axis=-1).reshape(shape).astype(dtype)
