"""Activation functions, compiled where that is free.

``mlx.nn`` compiles its own, which on a GPU fuses them into one kernel. On a CPU the first use
would call the system's C++ compiler for seconds to save microseconds, so there they are plain.
"""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn


def gelu(x: mx.array) -> mx.array:
    """x Phi(x), exact, through erf."""
    if on_gpu():
        return nn.gelu(x)
    return 0.5 * x * (1 + mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array) -> mx.array:
    """The tanh approximation of GELU."""
    if on_gpu():
        return nn.gelu_approx(x)
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def silu(x: mx.array) -> mx.array:
    """x sigmoid(x)."""
    return nn.silu(x) if on_gpu() else x * mx.sigmoid(x)


def on_gpu() -> bool:
    """Whether work goes to a GPU by default: there compiling fuses kernels and costs little."""
    return mx.default_device().type == mx.DeviceType.gpu
