"""Activations against their definitions."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlx_starflow.benchmark.checkup import casts_in
from mlx_starflow.device.activations import LARGE, gelu, gelu_tanh, rational_erf, silu
from mlx_starflow.export.functions import Array, Function, write_functions

X = np.linspace(-12, 12, 2 * LARGE, dtype=np.float32)


@pytest.mark.parametrize("count", [LARGE // 8, 2 * LARGE])
def test_values(count):
    x = X[:: len(X) // count]
    wide = x.astype(np.float64)
    erf = np.array([math.erf(v / math.sqrt(2)) for v in wide])
    tanh = np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
    for found, expected in (
        (gelu(mx.array(x)), 0.5 * wide * (1 + erf)),
        (gelu_tanh(mx.array(x)), 0.5 * wide * (1 + tanh)),
        (silu(mx.array(x)), wide / (1 + np.exp(-wide))),
    ):
        assert np.abs(np.array(found) - expected).max() < 2e-6


@pytest.mark.parametrize("count", [LARGE // 8, 2 * LARGE])
def test_slope_of_gelu(count):
    x = X[:: len(X) // count]
    wide = x.astype(np.float64)
    phi = np.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)
    expected = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in wide]) + wide * phi
    weights = mx.array(np.cos(x))  # one of its own for every element
    slope = mx.grad(lambda x: (weights * gelu(x)).sum())(mx.array(x))
    assert np.abs(np.array(slope) - np.cos(x) * expected).max() < 2e-6
    curve = mx.grad(lambda x: mx.grad(lambda x: gelu(x).sum())(x).sum())(mx.array(x))
    assert np.abs(np.array(curve) - phi * (2 - wide * wide)).max() < 5e-5


def test_erf_and_its_slope():
    erf = np.array([math.erf(v) for v in X])
    assert np.abs(np.array(rational_erf(mx.array(X))) - erf).max() < 5e-7
    slope = mx.grad(lambda x: rational_erf(x).sum())(mx.array(X))
    expected = 2 / math.sqrt(math.pi) * np.exp(-(X.astype(np.float64) ** 2))
    assert np.abs(np.array(slope) - expected).max() < 5e-6


def test_a_large_gelu_can_be_written_to_a_file(tmp_path):
    """It has a derivative of its own, which MLX cannot export."""
    function = Function("gelu", (Array("x", X.shape),), ("y",), lambda x: [gelu(x)])
    write_functions(tmp_path / "gelu.mlxfn", [function])
    x = mx.array(X)
    (y,) = mx.import_function(str(tmp_path / "gelu.mlxfn"))(**{"gelu.x": x})
    assert mx.array_equal(y, gelu(x))


def test_the_operations_of_a_large_gelu_can_be_listed():
    assert casts_in(gelu, mx.array(X), at_least=1) == []
    (cast,) = casts_in(lambda x: gelu(x.astype(mx.float32)), mx.array(X, mx.float16), at_least=1)
    assert cast.endswith("float16 -> float32")
