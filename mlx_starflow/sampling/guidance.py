"""Classifier-free guidance of a normal distribution: pure functions of sigma and b, or a and b.

Suffix c: conditional, u: null (unconditional). All arrays have the same shape.
"""

from __future__ import annotations

import mlx.core as mx

Pair = tuple[mx.array, mx.array]


def guide_normal(
    sigma_c: mx.array, b_c: mx.array, sigma_u: mx.array, b_u: mx.array, weight: float
) -> Pair:
    """Guided sigma and b of STARFlow (arXiv 2506.06276): the normalised product
    p_c^(1 + w) / p_u^w, with the null branch's precision capped by the conditional one's."""
    s = mx.square(mx.minimum(sigma_c / sigma_u, 1.0))
    q = 1 + weight - weight * s
    return sigma_c * mx.rsqrt(q), ((1 + weight) * b_c - weight * s * b_u) / q


def guide_linear(
    a_c: mx.array,
    b_c: mx.array,
    a_u: mx.array,
    b_u: mx.array,
    weight: float | mx.array,
    which: str,
) -> Pair:
    """Guided a and b of TarFlow (arXiv 2412.06329): c + w (c - u), for 'a', 'b' or both ('ab')."""
    a = a_c + weight * (a_c - a_u) if "a" in which else a_c
    b = b_c + weight * (b_c - b_u) if "b" in which else b_c
    return a, b
