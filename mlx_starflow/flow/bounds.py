"""An upper bound on the products of a layer for every input, computed from its weights.

The input of a layer is normalized, which bounds its length. A product with a row of a matrix is at
most the length of the input times the length of the row (Cauchy-Schwarz inequality).
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..device.typed import scalar
from .layers import MLP, Attention, Layer, LayerNorm

BOUND_OF_GELU = 1.0  # |gelu(x)| <= |x|


def largest_product(layer: Layer) -> float:
    """An upper bound on the absolute value of every query, key, value, product and input of a
    product in a layer."""
    return max(_attention(layer.attention), _mlp(layer.mlp))


def _attention(part: Attention) -> float:
    bound = _row_bound(part.qkv, _length(part.norm))
    heads = part.heads * part.head_dim
    # The output of attention is an average of values, so it is at most the largest value.
    return max(bound, _row_bound(part.proj, heads**0.5 * bound))


def _mlp(part: MLP) -> float:
    length, width = _length(part.norm), part.down.weight.shape[0]
    up = _row_bound(part.up, length)
    hidden = up * (_row_bound(part.gate, length) if "gate" in part else BOUND_OF_GELU)
    width = part.up.weight.shape[0]
    return max(up, hidden, _row_bound(part.down, width**0.5 * hidden))


def _length(norm: nn.Module) -> float:
    """The largest possible length of the output of a norm."""
    if isinstance(norm, LayerNorm):
        scale = scalar(mx.abs(norm.weight.astype(mx.float32)).max())
        shift = scalar(mx.linalg.norm(norm.bias.astype(mx.float32)))
        return norm.weight.size**0.5 * scale + shift
    return norm.weight.size**0.5 * scalar(mx.abs(1.0 + norm.weight.astype(mx.float32)).max())


def _row_bound(layer: nn.Module, length: float) -> float:
    """The largest output of a linear layer, bias included, for an input of this length."""
    weight = layer.weight
    if "scales" in layer:
        weight = mx.dequantize(
            weight, layer.scales, layer.get("biases"), layer.group_size, layer.bits, layer.mode
        )
    rows = scalar(mx.sqrt(mx.square(weight.astype(mx.float32)).sum(axis=-1)).max())
    bias = scalar(mx.abs(layer.bias).max()) if "bias" in layer else 0.0
    return rows * length + bias
