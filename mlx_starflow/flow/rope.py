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


@dataclass(frozen=True)
class Turn:
    """The rotary table of n positions in an elementwise form for compiled steps:
    x * cos + x[..., partner] * sin. It compiles to one kernel and a gather. Its gradient is slow,
    so parallel passes use ``Rotation``."""

    cos: mx.array  # (n, head_dim)
    sin: mx.array  # (n, head_dim), negative for the first number of a pair
    partner: mx.array  # (head_dim,), the other number of each pair


def turn(cos: mx.array, sin: mx.array, halves: bool) -> Turn:
    """A ``Turn`` from the cosines and sines (n, head_dim / 2) of n positions. ``halves``: see
    ``Rotation``."""
    pairs = cos.shape[-1]
    if halves:
        order = mx.arange(2 * pairs)
        partner = (order + pairs) % (2 * pairs)
        return Turn(mx.concatenate([cos, cos], -1), mx.concatenate([-sin, sin], -1), partner)
    both = (*cos.shape[:-1], 2 * pairs)
    partner = mx.arange(2 * pairs) ^ 1
    return Turn(
        mx.stack([cos, cos], -1).reshape(both), mx.stack([-sin, sin], -1).reshape(both), partner
    )


def rotate(x: mx.array, r: Rotation | Turn, bias: mx.array | None = None) -> mx.array:
    """Rotate x (B, heads, S, head_dim) of any dtype by the S rows of ``r``. Returns float32.

    ``bias`` (heads, 1, head_dim) is added to x first.
    """
    if isinstance(r, Turn):
        x = x.astype(mx.float32) if bias is None else x.astype(mx.float32) + bias
        return x * r.cos + mx.take(x, r.partner, axis=-1) * r.sin
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
