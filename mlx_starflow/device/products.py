"""Linear layers: products in the dtype of the weights, everything around them in float32.

The matrices are most of a model, and reading them is most of the work. They are therefore not
converted; the activations are converted to their dtype, 16 or 32 bits. Norms, biases, activation
functions, rotations and the residual stream stay in float32, whose rounding errors are small
enough for every sampler.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from .activations import on_gpu
from .shared import added_up, for_all, gathers

HALF = (mx.float16, mx.bfloat16)
# Rows from which a quantized matrix is dequantized before the product. MLX's quantized kernels are
# fast for few rows on a GPU; on a CPU they read the whole matrix once per row.
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
    """x (..., in) through a linear layer. Returns the product (..., out) in the layer's dtype, or
    float32 if the layer has an adapter, and the bias (out,) that is still to be added in float32;
    None if there is no bias or it has already been added."""
    kind, x = product_type(layer), for_all(layer, x)
    if "scales" in layer:
        value, bias = _quantized(layer, x.astype(kind)), layer.get("bias")
    elif kind == mx.float32 and not gathers(layer):
        value, bias = layer(x.astype(kind)), None
    else:
        value, bias = x.astype(kind) @ layer.weight.T, layer.get("bias")
    return added_up(layer, adapted(layer, x, value, bias is None)), bias


def adapted(layer: nn.Module, x: mx.array, value: mx.array, with_bias: bool = True) -> mx.array:
    """What a linear layer gives for x with its adapter: gain * (W x) + (x a) b, biases apart.

    ``value`` is what it gives without; ``with_bias``: its bias is in. The arrays of an adapter are
    beside the layer's own: adapter_a (in, r) and adapter_b (r, out), adapter_gain (out,), any of
    them (``mlx_starflow.adapters``). A zero adapter_b and a gain of 1 change no bit.
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
    """x (..., in) through a linear layer with its bias. Returns (..., out) in float32."""
    return with_bias(*product(layer, x))


def with_bias(value: mx.array, bias: mx.array | None) -> mx.array:
    """A product (..., out) plus its bias (out,) or None, in float32."""
    value = value.astype(mx.float32)
    return value if bias is None else value + bias


def unpack_rows() -> int:
    """Rows from which a quantized matrix is unpacked here."""
    return UNPACK_ROWS_GPU if on_gpu() else UNPACK_ROWS_CPU


def _quantized(layer: nn.Module, x: mx.array) -> mx.array:
    packing = dict(group_size=layer.group_size, bits=layer.bits, mode=layer.mode)
    biases = layer.get("biases")
    if x.size // x.shape[-1] >= unpack_rows():
        return x @ mx.dequantize(layer.weight, layer.scales, biases, **packing).T
    return mx.quantized_matmul(x, layer.weight, layer.scales, biases, transpose=True, **packing)
