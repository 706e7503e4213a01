"""Linear layers: matrix products in the dtype of the weights, all other operations in float32.

Matrices are most of a model's memory, and reading them takes most of the time. They are therefore
not converted; the activations are converted to their dtype (16 or 32 bits) for the product. Norms,
biases, activation functions, rotations and the residual stream stay in float32, whose rounding
errors are small enough for every sampler.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from .activations import on_gpu
from .shared import added_up, for_all, gathers

HALF = (mx.float16, mx.bfloat16)
# Number of rows from which a quantized matrix is dequantized before the product. MLX's quantized
# kernels are fast for few rows on a GPU; on a CPU they read the whole matrix once per row.
UNPACK_ROWS_GPU = 512
UNPACK_ROWS_CPU = 32


def product_type(layer: nn.Module) -> mx.Dtype:
    """The dtype in which a linear layer multiplies: that of its weight, or of its scales if it is
    quantized."""
    return layer.scales.dtype if "scales" in layer else layer.weight.dtype


def kept_type(layer: nn.Module) -> mx.Dtype:
    """The dtype in which keys and values made by a linear layer are cached: 16 bits if its weights
    have 16 bits or fewer (quantized), else float32."""
    kind = product_type(layer)
    return mx.float16 if "scales" in layer and kind == mx.float32 else kind


def product(layer: nn.Module, x: mx.array) -> tuple[mx.array, mx.array | None]:
    """Apply a linear layer to x (..., in). Returns the product (..., out), in the layer's dtype or
    in float32 if the layer has an adapter, and the bias (out,), which the caller must add in
    float32; None if there is no bias or it has already been added."""
    kind, x = product_type(layer), for_all(layer, x)
    if "scales" in layer:
        value, bias = _quantized(layer, x.astype(kind)), layer.get("bias")
    elif kind == mx.float32 and not gathers(layer):
        value, bias = layer(x.astype(kind)), None
    else:
        value, bias = x.astype(kind) @ layer.weight.T, layer.get("bias")
    return added_up(layer, adapted(layer, x, value, bias is None)), bias


def adapted(layer: nn.Module, x: mx.array, value: mx.array, with_bias: bool = True) -> mx.array:
    """The output (..., out) of a linear layer with its adapter: gain * (W x) + (x a) b, plus bias.

    ``value``: the output without the adapter; ``with_bias``: whether it includes the bias. The
    arrays of an adapter (``mlx_starflow.adapters``) are attributes of the layer: adapter_a (in, r)
    and adapter_b (r, out), or adapter_gain (out,), or all of them. With a zero adapter_b and a gain
    of 1 the output is exactly ``value``.
    """
    gain = layer.get("adapter_gain")
    if gain is not None:
        value = value.astype(mx.float32) * gain
        if with_bias and "bias" in layer:
            value = value + (1 - gain) * layer.bias
    if "adapter_a" in layer:
        low_rank = (x.astype(mx.float32) @ layer.adapter_a) @ layer.adapter_b
        value = value.astype(mx.float32) + low_rank
    return value


def linear(layer: nn.Module, x: mx.array) -> mx.array:
    """Apply a linear layer, with its bias, to x (..., in). Returns (..., out) in float32."""
    return with_bias(*product(layer, x))


def with_bias(value: mx.array, bias: mx.array | None) -> mx.array:
    """A product (..., out) plus its bias (out,) or None, in float32."""
    value = value.astype(mx.float32)
    return value if bias is None else value + bias


def unpack_rows() -> int:
    """Number of rows from which a quantized matrix is dequantized on the default device."""
    return UNPACK_ROWS_GPU if on_gpu() else UNPACK_ROWS_CPU


def _quantized(layer: nn.Module, x: mx.array) -> mx.array:
    packing = dict(group_size=layer.group_size, bits=layer.bits, mode=layer.mode)
    biases = layer.get("biases")
    if x.size // x.shape[-1] >= unpack_rows():
        return x @ mx.dequantize(layer.weight, layer.scales, biases, **packing).T
    return mx.quantized_matmul(x, layer.weight, layer.scales, biases, transpose=True, **packing)
