"""The layers of Gemma 2 and 3 for a text encoder: without KV cache, head and generation.

mlx-lm has these layers too, and the tests compare the results; but importing mlx-lm also imports
transformers, which takes longer than drawing a small picture. The parameters have the same names.
The residual stream is float32; products are in the dtype of the weights.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import gelu_tanh
from ..device.pieces import Pieces
from ..device.products import linear
from ..errors import ConfigError

CAPPED = "gemma2"  # has capped attention scores and no query and key norms

# Defaults of a Gemma 3 configuration: the values of the smallest model.
GEMMA3 = {
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 6912,
    "num_attention_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "vocab_size": 262144,
    "num_key_value_heads": 1,
}


@dataclass(frozen=True)
class GemmaConfig:
    """The settings of a flat config.json that the layers use."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    head_dim: int
    rms_norm_eps: float
    vocab_size: int
    num_key_value_heads: int
    rope_theta: float = 0.0
    rope_local_base_freq: float = 10_000.0
    query_pre_attn_scalar: float = 0.0
    attn_logit_softcapping: float = 50.0
    sliding_window_pattern: int = 0

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GemmaConfig:
        """Read a flat config.json. Errors: ConfigError naming a key that is missing or not a
        positive number."""
        capped = data.get("model_type") == CAPPED
        values: dict[str, Any] = {}
        defaults: dict[str, Any] = {
            "rope_theta": 10_000.0 if capped else 1_000_000.0,
            "query_pre_attn_scalar": 144.0 if capped else 256.0,
            "sliding_window_pattern": 2 if capped else 6,
        }
        defaults |= {} if capped else GEMMA3
        for field in dataclasses.fields(cls):
            value = data.get(field.name)
            if value is None:
                value = defaults.get(field.name, field.default)
            if value is dataclasses.MISSING:
                raise ConfigError(f"text_encoder/config.json: {field.name!r} is missing.")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            least = 0 if field.name == "num_hidden_layers" else 1e-30
            if field.name != "model_type" and not (number and value >= least):
                raise ConfigError(
                    f"text_encoder/config.json: {field.name!r} is {value!r}; expected a positive "
                    "number."
                )
            values[field.name] = value
        return cls(**values)


class RMSNorm(nn.Module):
    """x * rsqrt(mean x^2 + eps) * (1 + weight) in float32."""

    def __init__(self, channels: int, eps: float):
        super().__init__()  # type: ignore[no-untyped-call]
        self.weight = mx.zeros((channels,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, 1.0 + self.weight.astype(mx.float32), self.eps)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; ``full``: without a sliding window."""

    def __init__(self, config: GemmaConfig, full: bool):
        super().__init__()  # type: ignore[no-untyped-call]
        width, dim = config.hidden_size, config.head_dim
        heads, kv = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(width, heads * dim, bias=False)
        self.k_proj = nn.Linear(width, kv * dim, bias=False)
        self.v_proj = nn.Linear(width, kv * dim, bias=False)
        self.o_proj = nn.Linear(heads * dim, width, bias=False)
        self.cap = config.attn_logit_softcapping if config.model_type == CAPPED else 0.0
        if not self.cap:
            self.q_norm = RMSNorm(dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(dim, config.rms_norm_eps)
        self.dim, self.scale = dim, config.query_pre_attn_scalar**-0.5
        capped_or_full = full or config.model_type == CAPPED
        self.base = config.rope_theta if capped_or_full else config.rope_local_base_freq

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        q, k, v = (
            linear(part, x).reshape(*x.shape[:2], -1, self.dim).transpose(0, 2, 1, 3)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        if "q_norm" in self:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self._rotated(q), self._rotated(k)
        if self.cap:
            out = self._capped(q, k, v, mask)
        else:
            out = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask=mask)
        return linear(self.o_proj, out.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1))

    def _rotated(self, x: mx.array) -> mx.array:
        return mx.fast.rope(x, self.dim, traditional=False, base=self.base, scale=1.0, offset=0)

    def _capped(self, q: mx.array, k: mx.array, v: mx.array, mask: mx.array) -> mx.array:
        """Attention with scores limited to (-cap, cap) by a tanh, as in Gemma 2."""
        groups = q.shape[1] // k.shape[1]
        q = q.reshape(q.shape[0], k.shape[1], groups, *q.shape[2:])
        scores = (q * self.scale) @ k[:, :, None].swapaxes(-1, -2)
        scores = self.cap * mx.tanh(scores / self.cap)
        scores = mx.where(mask, scores, mx.finfo(scores.dtype).min)
        out = mx.softmax(scores, axis=-1, precise=True) @ v[:, :, None]
        return out.reshape(out.shape[0], -1, *out.shape[3:])


class MLP(nn.Module):
    """down(gelu_tanh(gate x) * up x)."""

    def __init__(self, config: GemmaConfig):
        super().__init__()  # type: ignore[no-untyped-call]
        width, hidden = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        hidden = gelu_tanh(linear(self.gate_proj, x)) * linear(self.up_proj, x)
        return linear(self.down_proj, hidden)


class Layer(nn.Module):
    """Attention and MLP, each with a norm before and after and a residual."""

    def __init__(self, config: GemmaConfig, full: bool):
        super().__init__()  # type: ignore[no-untyped-call]
        self.self_attn = Attention(config, full)
        self.mlp = MLP(config)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            self[f"{name}_layernorm"] = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        attended = self.self_attn(self.input_layernorm(x), mask)
        x = x + self.post_attention_layernorm(attended)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Body(nn.Module):
    """The embedding table, the layers and the final norm."""

    def __init__(self, config: GemmaConfig):
        super().__init__()  # type: ignore[no-untyped-call]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        pattern = config.sliding_window_pattern
        self.layers = [
            Layer(config, (i + 1) % pattern == 0) for i in range(config.num_hidden_layers)
        ]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Gemma(nn.Module):
    """A Gemma text model; its parameters are under ``model``, as in mlx-lm."""

    def __init__(self, config: GemmaConfig):
        super().__init__()  # type: ignore[no-untyped-call]
        self.args, self.model = config, Body(config)

    def pieces(self, tokens: int) -> tuple[Pieces, float]:
        """A ``Pieces`` counter for a pass over so many tokens, and the operations per layer."""
        c = self.args
        inner = c.head_dim * (2 * c.num_attention_heads + 2 * c.num_key_value_heads)
        return Pieces(), 2.0 * tokens * c.hidden_size * (inner + 3 * c.intermediate_size)
