"""The T5 encoder. Parameters are named as in a transformers checkpoint.

Conversion renames nothing: it keeps ``shared.weight`` and ``encoder.*``, and drops ``decoder.*``,
``lm_head.*`` and ``encoder.embed_tokens.weight`` (a copy of ``shared.weight``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import gelu, gelu_tanh, silu
from ..device.pieces import Pieces
from ..device.shared import Cut, Share, added_up, cut_layer, mark
from ..errors import ConfigError
from ..files.fields import Fields, shown

ACTIVATIONS = {
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu": gelu,
    "relu": lambda x: mx.maximum(x, 0),
    "silu": silu,
}


_LARGEST = {
    "d_model": 1 << 16,
    "d_kv": 1 << 12,
    "d_ff": 1 << 20,
    "num_heads": 1 << 12,
    "num_layers": 1000,
    "vocab_size": 1 << 24,
}


@dataclass(frozen=True)
class T5Config:
    """The settings of transformers' config.json that the encoder uses."""

    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_layers: int
    vocab_size: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    activation: str = "relu"
    gated: bool = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> T5Config:
        """Read a config.json of transformers. Errors: ConfigError naming the key."""
        fields = Fields(data, "T5 config.json")
        values: dict[str, Any] = {
            key: fields.whole(key, low=1, high=high) for key, high in _LARGEST.items()
        }
        buckets = fields.whole("relative_attention_num_buckets", 32, low=4, high=1 << 16)
        distance = fields.whole("relative_attention_max_distance", 128, low=1, high=1 << 16)
        if buckets % 2 or distance <= buckets // 4:
            raise ConfigError(
                f"T5 config.json: relative_attention_num_buckets is {buckets} and "
                f"relative_attention_max_distance {distance}; expected an even number of buckets "
                "and a distance above a quarter of it."
            )
        # "gated-gelu" means the tanh form of GELU, which newer files name in "dense_act_fn".
        projection = fields.text("feed_forward_proj", "relu", most=80)
        gated = fields.switch("is_gated_act", projection.startswith("gated-"))
        default = "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
        activation = fields.text("dense_act_fn", "", most=80) or default
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"T5 config.json: the activation {shown(activation)} is not one of "
                f"{', '.join(ACTIVATIONS)}."
            )
        values |= {
            "relative_attention_num_buckets": buckets,
            "relative_attention_max_distance": distance,
            "layer_norm_epsilon": fields.number("layer_norm_epsilon", 1e-6, low=1e-30, high=1),
        }
        return cls(**values, activation=activation, gated=gated)


class RMSNorm(nn.RMSNorm):
    """RMSNorm of an input of any dtype, computed and returned in float32."""

    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x.astype(mx.float32))  # type: ignore[no-untyped-call]


class SelfAttention(nn.Module):
    """Attention without scaling of the scores. The relative position bias is an argument; the
    weights of it are in the first block only (``has_bias``)."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        inner = config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(
                config.relative_attention_num_buckets, config.num_heads
            )

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        batch, length, _ = x.shape
        q, k, v = (
            project(x).reshape(batch, length, self.heads, -1).swapaxes(1, 2)
            for project in (self.q, self.k, self.v)
        )
        h = mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask=bias.astype(q.dtype))
        return added_up(self.o, self.o(h.swapaxes(1, 2).reshape(batch, length, -1)))


class DenseReluDense(nn.Module):
    """The feed-forward layer, gated or not; named as in transformers."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.activation = ACTIVATIONS[config.activation]
        if config.gated:
            self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
            self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        else:
            self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        # Float32 from the activation on. With float16 weights the last product is also in float32,
        # since large T5 models exceed the range of float16 here.
        if "wi" in self:
            h = self.activation(self.wi(x).astype(mx.float32))
        else:
            h = self.activation(self.wi_0(x).astype(mx.float32)) * self.wi_1(x).astype(mx.float32)
        return added_up(self.wo, self.wo(h if x.dtype == mx.float16 else h.astype(x.dtype)))


class AttentionLayer(nn.Module):
    """Self-attention and its norm."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.SelfAttention = SelfAttention(config, has_bias)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)


class FeedForwardLayer(nn.Module):
    """The feed-forward layer and its norm."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.DenseReluDense = DenseReluDense(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)


class Block(nn.Module):
    """x <- x + attention(norm(x)); x <- x + feed_forward(norm(x))."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer = [AttentionLayer(config, has_bias), FeedForwardLayer(config)]

    def __call__(self, x: mx.array, bias: mx.array, dtype: mx.Dtype) -> mx.array:
        attention, feed_forward = self.layer
        x = x + attention.SelfAttention(attention.layer_norm(x).astype(dtype), bias)
        return x + feed_forward.DenseReluDense(feed_forward.layer_norm(x).astype(dtype))


class Encoder(nn.Module):
    """The blocks and the final norm; named as in transformers."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.block = [Block(config, has_bias=i == 0) for i in range(config.num_layers)]
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)


class T5Encoder(nn.Module):
    """Token ids (B, L) -> last hidden state (B, L, d_model), float32.

    The residual stream is float32; the products are in the dtype of the weights.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config)

    def __call__(self, ids: mx.array) -> mx.array:
        x = self.shared(ids)
        dtype, x = x.dtype, x.astype(mx.float32)
        first = self.encoder.block[0].layer[0].SelfAttention
        buckets = relative_buckets(
            ids.shape[1],
            self.config.relative_attention_num_buckets,
            self.config.relative_attention_max_distance,
        )
        bias = first.relative_attention_bias(buckets).transpose(2, 0, 1)[None]
        pieces, c = Pieces(), self.config
        matrices = 4 * c.num_heads * c.d_kv + (3 if c.gated else 2) * c.d_ff
        for block in self.encoder.block:
            x = block(x, bias, dtype)
            pieces.add(2.0 * ids.size * c.d_model * matrices, x)
        return self.encoder.final_layer_norm(x)


def t5_cuts(config: T5Config, share: Share) -> dict[str, Cut]:
    """How the linear layers of an encoder are cut for a rank, by their paths. Errors: UsageError if
    heads or hidden numbers do not divide."""
    first, end = share.range(config.num_heads, "attention heads of T5")
    inner = config.num_heads * config.d_kv
    heads = ((first * config.d_kv, end * config.d_kv),)
    hidden = (share.range(config.d_ff, "hidden numbers of T5"),)
    cuts: dict[str, Cut] = {}
    for i in range(config.num_layers):
        path = f"encoder.block.{i}.layer"
        for name in ("q", "k", "v"):
            cuts[f"{path}.0.SelfAttention.{name}"] = Cut("rows", heads, inner)
        cuts[f"{path}.0.SelfAttention.o"] = Cut("columns", heads, inner)
        for name in ("wi_0", "wi_1") if config.gated else ("wi",):
            cuts[f"{path}.1.DenseReluDense.{name}"] = Cut("rows", hidden, config.d_ff)
        cuts[f"{path}.1.DenseReluDense.wo"] = Cut("columns", hidden, config.d_ff)
    return cuts


def shard_t5(model: T5Encoder, share: Share, loaded: bool = False) -> None:
    """Keep a rank's share of an encoder in memory. ``loaded``: its linear layers are shares
    already."""
    layers: dict[str, nn.Module] = dict(model.named_modules())  # type: ignore[no-untyped-call]
    for path, cut in t5_cuts(model.config, share).items():
        if loaded:
            mark(layers[path], cut, share)
        else:
            cut_layer(layers[path], cut, share, path)
    first, end = share.range(model.config.num_heads, "attention heads of T5")
    for block in model.encoder.block:
        block.layer[0].SelfAttention.heads = end - first
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
    bias.weight = mx.contiguous(bias.weight[:, first:end])


def relative_buckets(length: int, buckets: int, max_distance: int) -> mx.array:
    """Relative position buckets (L, L), by query (row) and key (column), as in arXiv 1910.10683.

    Half of the buckets are for keys after the query. In each half, the first half of the buckets
    are single distances, and the others grow logarithmically up to ``max_distance``.
    """
    half = buckets // 2
    exact = half // 2
    table = []
    for distance in range(length):
        if distance < exact:
            table.append(distance)
        else:
            share = math.log(distance / exact) / math.log(max_distance / exact)
            table.append(min(exact + int(share * (half - exact)), half - 1))
    near = mx.array(table)
    position = mx.arange(length)
    offset = position[None, :] - position[:, None]
    return near[mx.abs(offset)] + mx.where(offset > 0, half, 0)
