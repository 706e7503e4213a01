"""Paths between noises that stay where noise lives: near a sphere of radius sqrt(dimensions)."""

from __future__ import annotations

import mlx.core as mx

from ..device.typed import scalar
from ..errors import UsageError

PARALLEL = 1e-4  # radians; below, the arc is a straight line to float32's precision


def slerp(a: mx.array, b: mx.array, t: float) -> mx.array:
    """Spherical interpolation from a (t = 0) to b (t = 1), over all axes together.

    The direction turns at a constant rate along the great circle, the length changes linearly.
    Both ends are returned exactly. Errors: UsageError where the shapes differ, a noise is zero or
    the two point in opposite directions, which leaves the circle undefined.
    """
    if a.shape != b.shape:
        raise UsageError(f"The two noises have shapes {tuple(a.shape)} and {tuple(b.shape)}.")
    if t == 0 or t == 1:
        return a if t == 0 else b
    length_a, length_b = _length(a), _length(b)
    if length_a == 0 or length_b == 0:
        raise UsageError("A noise that is zero everywhere has no direction to turn from.")
    one, two = a / length_a, b / length_b
    # Stable for all angles, unlike the arc cosine of the product.
    angle = 2 * scalar(mx.arctan2(mx.array(_length(one - two)), mx.array(_length(one + two))))
    if angle > mx.pi - PARALLEL:
        raise UsageError("The two noises are opposite; no shortest arc joins them.")
    if angle < PARALLEL:
        direction = (1 - t) * one + t * two
    else:
        start, end = mx.sin(mx.array([(1 - t) * angle, t * angle])) / mx.sin(mx.array(angle))
        direction = start * one + end * two
    return ((1 - t) * length_a + t * length_b) * direction


def _length(a: mx.array) -> float:
    return scalar(mx.linalg.norm(a.reshape(-1)))
