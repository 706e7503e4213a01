"""Rotary position embedding from a table of angles (see ``grid``), since positions have two axes
and text. The cosines and sines are computed once per grid."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Rotation:
    """The rotary table of S positions."""

    cos: mx.array  # (S, head_dim / 2)
    sin: mx.array  # (S, head_dim / 2)
    halves: bool  # pairs are (x_k, x_k+head_dim/2); False: (x_2k, x_2k+1)

    def rows(self, start: int, stop: int) -> Rotation:
        """The table of positions start ... stop - 1."""
        return Rotation(self.cos[start:stop], self.sin[start:stop], self.halves)


def rotation(angles: mx.array, halves: bool) -> Rotation:
    """The rotary table of angles (S, head_dim / 2)."""
    return Rotation(mx.cos(angles), mx.sin(angles), halves)


def rotate(x: mx.array, r: Rotation, bias: mx.array | None = None) -> mx.array:
    """Rotate x (B, heads, S, head_dim) of any dtype by the S rows of ``r``. Returns float32.

    ``bias`` (heads, 1, head_dim) is added to x first.
    """
    first, second = _pairs(x, r.halves)
    if bias is not None:
        first_bias, second_bias = _pairs(bias, r.halves)
        first, second = first + first_bias, second + second_bias
    rotated = [first * r.cos - second * r.sin, second * r.cos + first * r.sin]
    if r.halves:
        return mx.concatenate(rotated, axis=-1)
    return mx.stack(rotated, axis=-1).reshape(x.shape)


def _pairs(x: mx.array, halves: bool) -> tuple[mx.array, mx.array]:
    """The first and the second numbers of every pair of x (..., head_dim), in float32."""
    if halves:
        first, second = mx.split(x, 2, axis=-1)
    else:
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        first, second = pairs[..., 0], pairs[..., 1]
    return first.astype(mx.float32), second.astype(mx.float32)
