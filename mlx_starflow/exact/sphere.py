"""Spherical interpolation. The length of standard normal noise is close to sqrt(dimensions), so a
path between two noises should stay near this sphere."""

from __future__ import annotations

import mlx.core as mx

from ..device.typed import scalar
from ..errors import UsageError

PARALLEL = 1e-4  # radians; a shorter arc is a straight line within float32 precision


def slerp(a: mx.array, b: mx.array, t: float) -> mx.array:
    """Spherical interpolation from a (t = 0) to b (t = 1), two arrays of the same shape.

    The direction follows the great circle at a constant rate, and the length changes linearly. At
    t = 0 and t = 1 it returns a and b exactly. Errors: UsageError if the shapes differ, a noise is
    zero, or the noises are opposite, since the great circle is then undefined.
    """
    if a.shape != b.shape:
        raise UsageError(
            f"The two noises have the shapes {tuple(a.shape)} and {tuple(b.shape)}; expected equal "
            "shapes."
        )
    if t == 0 or t == 1:
        return a if t == 0 else b
    length_a, length_b = _length(a), _length(b)
    if length_a == 0 or length_b == 0:
        raise UsageError("A noise is zero everywhere, so it has no direction to interpolate.")
    one, two = a / length_a, b / length_b
    # Accurate for all angles, unlike the arc cosine of the scalar product.
    angle = 2 * scalar(mx.arctan2(mx.array(_length(one - two)), mx.array(_length(one + two))))
    if angle > mx.pi - PARALLEL:
        raise UsageError("The two noises are opposite, so there is no unique path between them.")
    if angle < PARALLEL:
        direction = (1 - t) * one + t * two
    else:
        start, end = mx.sin(mx.array([(1 - t) * angle, t * angle])) / mx.sin(mx.array(angle))
        direction = start * one + end * two
    return ((1 - t) * length_a + t * length_b) * direction


def _length(a: mx.array) -> float:
    return scalar(mx.linalg.norm(a.reshape(-1)))
