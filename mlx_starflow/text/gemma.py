"""Gemma 2 and 3 as text encoders.

The layers are those of ``gemma_layers``. Only for configurations with ``rope_scaling`` mlx-lm's
model is used, which supports all kinds of it; importing mlx-lm takes about a second.
Weights have mlx-lm's names, ``model.embed_tokens.weight``, ``model.layers.…``,
``model.norm.weight``. A checkpoint saved as a bare ``Gemma2Model`` lacks the prefix ``model.``,
which the conversion adds. ``lm_head.weight`` is tied to the embedding table and not stored. The
configuration is flat: ``rope_theta``, ``rope_local_base_freq``, ``rope_scaling`` and
``sliding_window_pattern`` for Gemma 3, ``rope_theta`` for Gemma 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..bundle.load import check_quantization, evaluate, load_arrays, weight_files
from ..bundle.safetensors import read_header
from ..device.activations import gelu_tanh
from ..device.pieces import Pieces
from ..device.typed import parameters_of
from ..errors import ConfigError, WeightsError
from ..files.fields import Fields
from .gemma_layers import Gemma, GemmaConfig

MODEL_TYPES = ("gemma2", "gemma3_text")
TABLE = "model.embed_tokens"


def build_gemma(config: dict[str, Any]) -> nn.Module:
    """The model for a config.json of type "gemma2" or "gemma3_text", without its weights.

    Errors: ConfigError for another type, nested settings (which would be ignored), bidirectional
    attention, or a number out of range.
    """
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise ConfigError(
            f"text_encoder/config.json: model_type is {kind!r}; expected one of "
            f"{', '.join(MODEL_TYPES)}. Convert the text encoder again."
        )
    for key in ("rope_parameters", "text_config"):
        if key in config:
            raise ConfigError(
                f"text_encoder/config.json: {key!r} is nested, which mlx-lm does not read. "
                "Convert the text encoder again: conversion flattens it."
            )
    if config.get("use_bidirectional_attention"):
        raise ConfigError(
            "text_encoder/config.json: bidirectional attention is not supported; expected "
            "use_bidirectional_attention to be false or absent."
        )
    _check_numbers(Fields(config, "text_encoder/config.json"))
    if not config.get("rope_scaling"):
        return Gemma(GemmaConfig.from_dict(config))
    return build_with_mlx_lm(config)


def build_with_mlx_lm(config: dict[str, Any]) -> nn.Module:
    """mlx-lm's model for a flat config.json. Errors: ConfigError."""
    from mlx_lm.models import gemma2, gemma3_text

    kind = config["model_type"]
    module = {"gemma2": gemma2, "gemma3_text": gemma3_text}[kind]
    try:
        model = module.Model(module.ModelArgs.from_dict(config))
    except Exception as error:  # mlx-lm does not check settings, so its layers may raise anything
        raise ConfigError(f"text_encoder/config.json: {str(error)[:200]}.") from error
    if kind == "gemma3_text":
        model.sanitize({})  # removes the head, which is tied to the embedding table
    return model


_SIZES = {
    "hidden_size": 1 << 16,
    "num_hidden_layers": 1000,
    "intermediate_size": 1 << 20,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 12,
    "vocab_size": 1 << 24,
    "sliding_window_pattern": 1 << 12,
    "max_position_embeddings": 1 << 30,
}
_POSITIVE = (
    "rms_norm_eps", "rope_theta", "rope_local_base_freq", "query_pre_attn_scalar",
    "attn_logit_softcapping", "final_logit_softcapping",
)  # fmt: skip


def _check_numbers(fields: Fields) -> None:
    """Check the range of all sizes and numbers. Errors: ConfigError naming the key."""
    fields.whole("vocab_size", low=1)  # token ids are checked against it
    for key, high in _SIZES.items():
        fields.whole(key, None, low=0 if key == "num_hidden_layers" else 1, high=high)
    for key in _POSITIVE:
        fields.number(key, None, low=1e-30, high=1e12)
    fields.whole("sliding_window", None, low=0, high=1 << 30)
    fields.switch("rope_traditional", None)
    scaling = fields.fields("rope_scaling", None)
    if scaling is not None:
        scaling.number("factor", None, low=1e-3, high=1e3)
        if not any("type" in key for key in scaling.data):
            raise scaling.refuse("type", "the name of a kind of scaling")
    heads, kv_heads = fields.data.get("num_attention_heads"), fields.data.get("num_key_value_heads")
    if heads and kv_heads and heads % kv_heads:
        raise fields.refuse("num_key_value_heads", f"a divisor of the {heads} heads")


class GemmaHidden:
    """Token ids (L,) without padding -> last hidden state (L, D), float32.

    ``window``: positions in the attention of the sliding-window layers, 0 for all.
    """

    def __init__(self, model: nn.Module, window: int) -> None:
        self._model = model
        self._window = window
        self._pattern = getattr(model.args, "sliding_window_pattern", 2)
        self.channels = model.args.hidden_size

    def __call__(self, ids: mx.array) -> mx.array:
        """Run the layers. mlx-lm's own forward pass is not used, since it rounds the embedding
        scale of Gemma 3 to bfloat16 and has no sliding window for Gemma 2."""
        body, pieces, work = self._model.model, Pieces(), 0.0
        x = _scaled(body.embed_tokens(ids[None]), self.channels)
        if isinstance(self._model, Gemma):
            x = x.astype(mx.float32)
            pieces, work = self._model.pieces(ids.size)
        for i, layer in enumerate(body.layers):
            mask = self._mask(i, ids.shape[0])
            own = isinstance(self._model, Gemma)
            x = layer(x, mask) if own else _through(layer, x, mask)
            pieces.add(work, x)
        return body.norm(x)[0].astype(mx.float32)

    def _mask(self, layer: int, length: int) -> mx.array:
        """The mask (L, L) of a layer: True where a query (row) attends to a key. Every
        ``sliding_window_pattern``-th layer has no window."""
        position = mx.arange(length)
        distance = position[:, None] - position[None, :]
        mask = distance >= 0
        if self._window and (layer + 1) % self._pattern:
            mask = mask & (distance < self._window)
        return mask


def _through(layer: nn.Module, x: mx.array, mask: mx.array) -> mx.array:
    """One layer of mlx-lm's model, without its compiled functions: on a CPU, MLX would compile them
    with the system's compiler and load them from a directory that other users may write to."""
    attended = layer.self_attn(layer.input_layernorm(x), mask)
    x = _added(x, layer.post_attention_layernorm(attended))
    hidden = layer.pre_feedforward_layernorm(x)
    gate = gelu_tanh(layer.mlp.gate_proj(hidden))
    hidden = layer.mlp.down_proj(gate * layer.mlp.up_proj(hidden))
    return _added(x, layer.post_feedforward_layernorm(hidden))


def _added(x: mx.array, y: mx.array) -> mx.array:
    """x + y. In float16 the sum is clipped to the range of float16, which Gemma's residual stream
    exceeds."""
    if x.dtype != mx.float16:
        return x + y
    bound = mx.finfo(mx.float16).max
    return mx.clip(x.astype(mx.float32) + y.astype(mx.float32), -bound, bound).astype(mx.float16)


class GemmaTable:
    """Token ids (L,) -> rows of the embedding table times sqrt(D), (L, D) float32."""

    def __init__(self, table: nn.Module, channels: int) -> None:
        self._table = table
        self.channels = channels

    def __call__(self, ids: mx.array) -> mx.array:
        return _scaled(self._table(ids).astype(mx.float32), self.channels)


def load_table(directory: Path, config: dict[str, Any]) -> GemmaTable:
    """Load only the embedding table of a Gemma component, quantized or not.

    Errors: WeightsError if the table is missing or its shape differs from the configuration;
    ConfigError.
    """
    fields = Fields(config, str(directory / "config.json"))
    rows = fields.whole("vocab_size", low=1, high=_SIZES["vocab_size"])
    channels = fields.whole("hidden_size", low=1, high=_SIZES["hidden_size"])
    found: dict[str, mx.array] = {}
    for path in weight_files(directory):
        read_header(path)
        tensors = load_arrays(path)  # lazy: reads no data yet
        prefix = TABLE + "."
        found |= {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if "weight" not in found:
        raise WeightsError(
            f"{directory}: the tensor {TABLE}.weight is missing. Convert the text encoder again."
        )
    if "scales" in found:
        table: nn.Module = nn.QuantizedEmbedding(rows, channels, **_quantization(config))
    else:
        table = nn.Embedding(rows, channels)
    for name, value in table.parameters().items():
        if name not in found or found[name].shape != value.shape:
            shape = found[name].shape if name in found else None
            raise WeightsError(
                f"{directory}: {TABLE}.{name} has shape {shape}; the configuration says "
                f"{value.shape}. Convert the text encoder again."
            )
        if (found[name].dtype == mx.uint32) != (value.dtype == mx.uint32):
            raise WeightsError(
                f"{directory}: {TABLE}.{name} is of type {found[name].dtype}. "
                "Convert the text encoder again."
            )
    table.update({name: found[name] for name in table.parameters()})
    evaluate(
        parameters_of(table), directory
    )  # unevaluated arrays could not be used in other threads
    return GemmaTable(table, channels)


def _quantization(config: dict[str, Any]) -> dict[str, Any]:
    """group_size, bits, … of the table: from its own entry, else those of the component."""
    settings = config.get("quantization")
    if not isinstance(settings, dict):
        raise ConfigError(
            "text_encoder/config.json: the table is quantized, but 'quantization' is missing."
        )
    check_quantization(settings, "text_encoder/config.json")
    own = settings.get(TABLE)
    if isinstance(own, dict):
        return own
    return {k: v for k, v in settings.items() if not isinstance(v, dict)}


def _scaled(x: mx.array, channels: int) -> mx.array:
    return x * mx.array(channels**0.5, x.dtype)
