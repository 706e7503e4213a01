"""Exact likelihood: the change of variables, one parallel pass (arXiv 2412.06329)."""

from __future__ import annotations

import math

import mlx.core as mx

from ..flow import Context, Flow

LOG_2PI = math.log(2 * math.pi)


def log_prob(flow: Flow, x: mx.array, context: Context = None) -> mx.array:
    """log p(x | context) in nats, (B,) float32.

    x (B, H, W, C) is what the flow models: for a model trained with noise, a latent or image
    with that noise added. The prior is N(0, I).
    """
    z, logdet = flow(x, context)
    return normal_log_prob(z) + logdet


def normal_log_prob(z: mx.array) -> mx.array:
    """log N(z; 0, I) in nats over all but the first axis, (B,)."""
    return (-0.5 * (mx.square(z) + LOG_2PI)).sum(axis=tuple(range(1, z.ndim)))


def bits_per_dim(log_p: mx.array, numbers: int) -> mx.array:
    """Bits per dimension of 8-bit pixels, scaled to [-1, 1] and uniformly dequantised, from
    log p in nats over ``numbers`` = H * W * C values."""
    return (-log_p / numbers + math.log(128.0)) / math.log(2.0)
