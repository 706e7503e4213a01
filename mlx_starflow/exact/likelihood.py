"""Exact likelihood by the change of variables, in one parallel pass (arXiv 2412.06329)."""

from __future__ import annotations

import math

import mlx.core as mx

from ..flow import Context, Flow

LOG_2PI = math.log(2 * math.pi)


def log_prob(flow: Flow, x: mx.array, context: Context = None) -> mx.array:
    """log p(x | context) in nats, (B,) float32.

    x (B, H, W, C): as the flow models it; for a model trained with noise, a latent or image with
    that noise added. context: as for ``Flow``. The prior is N(0, I). Errors: UsageError.
    """
    z, logdet = flow(x, context)
    return normal_log_prob(z) + logdet


def normal_log_prob(z: mx.array) -> mx.array:
    """log N(z; 0, I) in nats over all but the first axis, (B,)."""
    return (-0.5 * (mx.square(z) + LOG_2PI)).sum(axis=tuple(range(1, z.ndim)))


def bits_per_dim(log_p: mx.array, numbers: int) -> mx.array:
    """Bits per dimension of 8-bit pictures, from log p in nats, of any shape.

    ``numbers``: dimensions of a picture, H * W * C. The pixels were scaled to [-1, 1] and uniformly
    dequantised.
    """
    return (-log_p / numbers + math.log(128.0)) / math.log(2.0)
