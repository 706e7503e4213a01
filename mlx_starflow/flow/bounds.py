"""How large the products of a layer can become, whatever its input: told from its weights.

A norm stands before every product of a layer, which bounds the length of what comes in; a row of a
matrix multiplies that by at most its own length (Cauchy and Schwarz).
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..device.typed import scalar
from .layers import MLP, Attention, Layer, LayerNorm

BOUND_OF_GELU = 1.0  # |gelu(x)| <= |x|


def largest_product(layer: Layer) -> float:
    """A bound of the absolute value of every product, query, key, value and input of a product."""
    return max(_attention(layer.attention), _mlp(layer.mlp))


def _attention(part: Attention) -> float:
    bound = _row_bound(part.qkv, _length(part.norm))
    heads = part.heads * part.head_dim
    # Attention averages values, so no number of its output is larger than the largest value.
    return max(bound, _row_bound(part.proj, heads**0.5 * bound))


def _mlp(part: MLP) -> float:
    length, width = _length(part.norm), part.down.weight.shape[0]
    up = _row_bound(part.up, length)
    hidden = up * (_row_bound(part.gate, length) if "gate" in part else BOUND_OF_GELU)
    width = part.up.weight.shape[0]
    return max(up, hidden, _row_bound(part.down, width**0.5 * hidden))


def _length(norm: nn.Module) -> float:
    """The greatest length of a normalized vector."""
    if isinstance(norm, LayerNorm):
        scale = scalar(mx.abs(norm.weight.astype(mx.float32)).max())
        shift = scalar(mx.linalg.norm(norm.bias.astype(mx.float32)))
        return norm.weight.size**0.5 * scale + shift
    return norm.weight.size**0.5 * scalar(mx.abs(1.0 + norm.weight.astype(mx.float32)).max())


def _row_bound(layer: nn.Module, length: float) -> float:
    """The largest product of a row with a vector of this length, its bias included."""
    weight = layer.weight
    if "scales" in layer:
        weight = mx.dequantize(
            weight, layer.scales, layer.get("biases"), layer.group_size, layer.bits, layer.mode
        )
    rows = scalar(mx.sqrt(mx.square(weight.astype(mx.float32)).sum(axis=-1)).max())
    bias = scalar(mx.abs(layer.bias).max()) if "bias" in layer else 0.0
    return rows * length + bias
