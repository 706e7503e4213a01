"""Transformer layers: pre-norm attention and MLP, each with a residual (arXiv 2506.06276).

Products, queries, keys and values are in the dtype of the weights, everything else in float32
(see device/products.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from ..config import BlockConfig
from ..device.activations import gelu, gelu_tanh
from ..device.pieces import Pieces, evaluate
from ..device.products import kept_type, linear, product, product_type, with_bias
from ..device.shared import for_all
from .cache import KVCache
from .rope import Rotation, rotate

MANY = 4096  # places of a clip that go through an MLP together


class LayerNorm(nn.Module):
    """LayerNorm with weight and bias, eps 1e-5."""

    def __init__(self, channels: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self.weight = mx.ones((channels,))
        self.bias = mx.zeros((channels,))

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.weight, self.bias, 1e-5)


class RMSNorm(nn.Module):
    """x * rsqrt(mean x^2 + 1e-6) * (1 + weight) in float32: the weight is an offset from 1."""

    # The scale is applied outside of the kernel, so that a compiled step fuses it with the next
    # operation.

    def __init__(self, channels: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self.weight = mx.zeros((channels,))

    def __call__(self, x: mx.array) -> mx.array:
        scale = 1.0 + for_all(self, self.weight.astype(mx.float32))
        return mx.fast.rms_norm(x.astype(mx.float32), None, 1e-6) * scale


def make_norm(config: BlockConfig) -> nn.Module:
    """The norm that a block uses before attention and MLP."""
    kind = LayerNorm if config.norm == "layer_norm" else RMSNorm
    return kind(config.channels)


@dataclass(frozen=True)
class Span:
    """A run of queries and the keys that all of them see, as ranges of places."""

    queries: slice
    keys: tuple[slice, ...]


Mask = str | mx.array | list[Span] | None  # "causal", one bool per query and key, or runs of both


def attend(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Mask) -> mx.array:
    """Attention of q (B, heads, n, head_dim) to k and v. Spans cover the queries in order; each is
    computed by itself, so that no array of all queries and keys is ever made."""
    if not isinstance(mask, list):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    parts, pieces = [], Pieces()
    for span in mask:
        keys, values = (mx.concatenate([a[:, :, r] for r in span.keys], axis=2) for a in (k, v))
        queries = q[:, :, span.queries]
        parts.append(mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale))
        pieces.add(4.0 * queries.size * keys.shape[2], parts[-1])
    return mx.concatenate(parts, axis=2)


class Attention(nn.Module):
    """Grouped-query attention with optional query/key norm and rotary positions."""

    def __init__(self, config: BlockConfig):
        super().__init__()  # type: ignore[no-untyped-call]
        inner, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.norm = make_norm(config)
        self.qkv = nn.Linear(config.channels, inner + 2 * kv, bias=config.bias)
        self.proj = nn.Linear(inner, config.channels, bias=config.bias)
        if config.qk_norm:
            self.query_norm = RMSNorm(config.head_dim)
            self.key_norm = RMSNorm(config.head_dim)
        if config.post_norm:
            self.post_norm = RMSNorm(config.channels)
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim

    def __call__(
        self,
        x: mx.array,
        rotation: Rotation | None,
        mask: Mask,
        cache: KVCache | None = None,
        start: int = 0,
        sharpness: mx.array | None = None,
    ) -> mx.array:
        """x (B, S, channels) at positions start ... start + S - 1 -> (B, S, channels).

        mask: "causal", a boolean array (S, keys) or None. cache: keys and values of earlier
        positions, updated in place. sharpness (B, 1, 1, 1): multiplies the attention scale per
        row.
        """
        kept, kind = kept_type(self.qkv), product_type(self.qkv)
        (qk, v), (qk_bias, v_bias) = self._heads(*product(self.qkv, self.norm(x)))
        if "query_norm" in self:
            q, k = mx.split(with_bias(qk, qk_bias), [self.heads], axis=1)
            qk, qk_bias = mx.concatenate([self.query_norm(q), self.key_norm(k)], axis=1), None
        qk = with_bias(qk, qk_bias) if rotation is None else rotate(qk, rotation, qk_bias)
        if kept == kind and sharpness is None:
            qk = qk.astype(kind)
        q, k = mx.split(qk, [self.heads], axis=1)
        if sharpness is not None:
            q = q * sharpness
        k, v = k.astype(kept), with_bias(v, v_bias).astype(kept)
        if cache is not None:
            k, v = cache.update(k, v, start)
        q, k, v = q.astype(kind), k.astype(kind), v.astype(kind)
        if isinstance(mask, str) and q.shape[2] == 1:  # a single query attends to all keys so far
            keys = k.shape[2]
            mask = None if keys == start + 1 else mx.arange(keys)[None] <= start
        out = attend(q, k, v, self.head_dim**-0.5, mask)
        out = linear(self.proj, out.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1))
        return self.post_norm(out) if "post_norm" in self else out

    def _heads(
        self, qkv: mx.array, bias: mx.array | None
    ) -> tuple[list[mx.array], list[mx.array | None]]:
        """Split qkv (B, S, all heads) into queries with keys, and values, both (B, heads, S,
        head_dim), and the bias alike into (heads, 1, head_dim), or None."""
        cuts = [self.heads + self.kv_heads]
        heads = qkv.reshape(*qkv.shape[:2], -1, self.head_dim).transpose(0, 2, 1, 3)
        parts = cast(list[mx.array], mx.split(heads, cuts, axis=1))
        if bias is None:
            return parts, [None] * 2
        biases = mx.split(bias.reshape(-1, 1, self.head_dim), cuts)
        return parts, cast(list[mx.array | None], biases)


class MLP(nn.Module):
    """down(gelu(up x)) with the exact GELU, or gated: down(gelu_tanh(gate x) * up x)."""

    def __init__(self, config: BlockConfig):
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm = make_norm(config)
        if config.gated_mlp:
            self.gate = nn.Linear(config.channels, config.mlp_channels, bias=config.bias)
        self.up = nn.Linear(config.channels, config.mlp_channels, bias=config.bias)
        self.down = nn.Linear(config.mlp_channels, config.channels, bias=config.bias)
        if config.post_norm:
            self.post_norm = RMSNorm(config.channels)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.norm(x)
        if "gate" in self:
            hidden = gelu_tanh(linear(self.gate, x)) * linear(self.up, x)
        else:
            hidden = gelu(linear(self.up, x))
        out = linear(self.down, hidden)
        return self.post_norm(out) if "post_norm" in self else out


class Layer(nn.Module):
    """s <- s + Attention(norm(s)); s <- s + MLP(norm(s))."""

    def __init__(self, config: BlockConfig):
        super().__init__()  # type: ignore[no-untyped-call]
        self.attention = Attention(config)
        self.mlp = MLP(config)

    def __call__(
        self,
        x: mx.array,
        rotation: Rotation | None,
        mask: Mask,
        cache: KVCache | None = None,
        start: int = 0,
        sharpness: mx.array | None = None,
    ) -> mx.array:
        x = x + self.attention(x, rotation, mask, cache, start, sharpness)
        if not isinstance(mask, list) or x.shape[1] <= MANY:
            return x + self.mlp(x)
        done = []
        for first in range(0, x.shape[1], MANY):  # of a clip's activations only some at a time
            part = x[:, first : first + MANY]
            done.append(part + self.mlp(part))
            evaluate(done[-1])
        return mx.concatenate(done, axis=1)

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of the layer's products: that of its weights, or of their scales if
        quantized."""
        return product_type(self.attention.qkv)
