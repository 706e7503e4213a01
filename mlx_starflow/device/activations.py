"""Activation functions: compiled ones on a GPU, uncompiled ones on a CPU.

``mlx.nn`` compiles its activation functions. On a GPU this fuses each into one kernel. On a CPU
the first call runs the system's C++ compiler for seconds, and later calls save only microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import mlx.core as mx
import mlx.nn as nn

LARGE = 8192  # elements from which ``rational_erf`` is faster than ``mx.erf`` on a CPU

# erf(x) = x P(x^2) / Q(x^2) on |x| <= 3.8, from a least-squares fit that is reweighted to minimise
# the largest error (1e-8). For larger |x|, erf is 1 or -1 in float32.
_ERF_END = 3.8
_ERF_P = (
    1.12837907, 1.88116191e-1, 5.25473453e-2, 3.69361521e-3, 2.87999779e-4, 2.13213598e-6,
)  # fmt: skip
_ERF_Q = (
    1.0, 5.00045890e-1, 1.13254906e-1, 1.48229311e-2, 1.15374613e-3, 3.90979122e-5,
)  # fmt: skip
# tanh(x) = x P(x^2) / Q(x^2) on |x| <= 8.5, from the same kind of fit (largest error 1e-8).
_TANH_END = 8.5
_TANH_P = (
    0.999999946, 1.34062194e-1, 3.52583452e-3, 2.11217974e-5, 1.40995128e-8,
)  # fmt: skip
_TANH_Q = (
    1.0, 4.67395308e-1, 2.59911951e-2, 3.33571422e-4, 8.07373871e-7,
)  # fmt: skip
# The derivative of GELU is 1/2 + x P(x^2) / Q(x^2) on |x| <= 6.2, from the same kind of fit
# (largest error 6e-9).
_SLOPE_END = 6.2
_SLOPE_P = (
    0.797884514, -1.8236625e-2, 1.36988263e-2, 2.7759925e-4, 3.4161964e-5, 1.12539396e-6,
    1.87350984e-8,
)  # fmt: skip
_SLOPE_Q = (
    1.0, 3.1047653e-1, 4.5662772e-2, 4.18568577e-3, 2.64342001e-4, 1.12995022e-5, 3.96429641e-7,
    1.37638083e-9,
)  # fmt: skip


def rational_erf(x: mx.array) -> mx.array:
    """erf(x) for every element, error at most 4e-7. ``mx.erf`` is not vectorized on a CPU."""
    x = mx.clip(x, -_ERF_END, _ERF_END)
    square = x * x
    return x * _horner(_ERF_P, square) / _horner(_ERF_Q, square)


def rational_tanh(x: mx.array) -> mx.array:
    """tanh(x) for every element, error at most 4e-7. ``mx.tanh`` is not vectorized on a CPU."""
    x = mx.clip(x, -_TANH_END, _TANH_END)
    square = x * x
    return x * _horner(_TANH_P, square) / _horner(_TANH_Q, square)


def _horner(coefficients: tuple[float, ...], x: mx.array) -> mx.array:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        value = value * x + coefficient
    return value


def gelu(x: mx.array) -> mx.array:
    """GELU in its exact form, x Phi(x)."""
    if on_gpu():
        return nn.gelu(x)
    if x.size < LARGE:
        return 0.5 * x * (1 + mx.erf(x * math.sqrt(0.5)))
    return _rational_gelu(x) if _for_export.get() else cast(mx.array, _gelu_with_slope(x))


_for_export: ContextVar[bool] = ContextVar("_for_export", default=False)


@contextmanager
def for_export() -> Iterator[None]:
    """Around, or as decorator of, a function that ``mx.export_function`` or ``mx.exporter`` traces:
    without derivatives of our own, which MLX cannot export."""
    token = _for_export.set(True)
    try:
        yield
    finally:
        _for_export.reset(token)


def _rational_gelu(x: mx.array) -> mx.array:
    return 0.5 * x * (1 + rational_erf(x * math.sqrt(0.5)))


_gelu_with_slope = mx.custom_function(_rational_gelu)


@_gelu_with_slope.vjp
def _slope_of_gelu(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    """The derivative from its own fit: that of ``rational_erf``, operation by operation, takes
    three times as long."""
    x = mx.clip(x, -_SLOPE_END, _SLOPE_END)
    square = x * x
    return cotangent * (0.5 + x * _horner(_SLOPE_P, square) / _horner(_SLOPE_Q, square))


def gelu_tanh(x: mx.array) -> mx.array:
    """The tanh approximation of GELU."""
    if on_gpu():
        return nn.gelu_approx(x)
    return 0.5 * x * (1 + _tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def silu(x: mx.array) -> mx.array:
    """SiLU, x sigmoid(x)."""
    if on_gpu():
        return nn.silu(x)
    half = 0.5 * x
    return half + half * _tanh(half)


def _tanh(x: mx.array) -> mx.array:
    return rational_tanh(x) if x.size >= LARGE and x.dtype == mx.float32 else mx.tanh(x)


def on_gpu() -> bool:
    """Whether MLX's default device is a GPU."""
    return mx.default_device().type == mx.DeviceType.gpu
