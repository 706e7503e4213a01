"""Text encoders: T5 and Gemma directories of transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.nn as nn

from mlx_starflow.config import TextConfig
from mlx_starflow.device.typed import parameters_of
from mlx_starflow.errors import ConfigError, TextError, WeightsError
from mlx_starflow.files.fields import is_number, shown
from mlx_starflow.text.gemma import build_gemma
from mlx_starflow.text.t5 import T5Config, T5Encoder

from ..read.settings_json import check_whole, read_settings_json
from ..read.sources import Checkpoint
from ..read.tensor_file import FLOATS, SourceTensor

_LARGEST = {
    **dict.fromkeys(("num_layers", "num_hidden_layers"), 1000),
    **dict.fromkeys(("num_heads", "num_attention_heads", "num_key_value_heads"), 4096),
    **dict.fromkeys(("d_model", "d_ff", "d_kv", "hidden_size", "intermediate_size"), 1 << 20),
    **dict.fromkeys(("head_dim", "sliding_window_pattern"), 1 << 16),
    **dict.fromkeys(("relative_attention_num_buckets", "relative_attention_max_distance"), 1 << 16),
    "vocab_size": 1 << 24,
}
_GEMMA3_PATTERN = 6  # default: every sixth layer has global attention
# Settings that the text part of a multimodal Gemma 3 may leave out.
_SEEING_DEFAULTS = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}


@dataclass(frozen=True)
class TextSource:
    """The configuration and tensors of a text encoder for the bundle."""

    config: dict[str, Any]  # config.json
    tensors: dict[str, SourceTensor]  # by bundle name


def text_source(directory: Path, checkpoint: Checkpoint, wanted: TextConfig | None) -> TextSource:
    """Configuration and tensors of a T5 or Gemma directory.

    ``wanted``: the text settings of the model. Errors: TextError for another encoder or width,
    ConfigError for unsupported settings, WeightsError naming a tensor.
    """
    config = read_settings_json(directory / "config.json")
    _check_kind(directory, config, wanted)
    where = str(directory / "config.json")
    check_whole(config, _LARGEST, where)
    module: nn.Module
    if config.get("model_type") == "t5":
        tensors, module = _t5_tensors(checkpoint), T5Encoder(T5Config.from_dict(config))
    else:
        config, tensors = _gemma(directory, config, checkpoint)
        check_whole(config, _LARGEST, where)
        module = build_gemma(config)
    _check_shapes(checkpoint, tensors, dict(parameters_of(module)))
    if not (directory / "tokenizer.json").is_file():
        raise TextError(
            f"{directory}/tokenizer.json is missing. Download the tokenizer files of the text "
            "encoder too."
        )
    return TextSource(config, tensors)


def _check_kind(directory: Path, config: dict[str, Any], wanted: TextConfig | None) -> None:
    kind = config.get("model_type")
    family = "t5" if kind == "t5" else "gemma" if str(kind).startswith("gemma") else None
    if family is None:
        raise TextError(
            f"{directory}/config.json: model_type is {shown(kind)}; expected a T5, Gemma 2 or "
            "Gemma 3 text encoder."
        )
    if wanted is None:
        raise TextError(f"This flow takes no text; leave the text encoder {directory} out.")
    if wanted.encoder == "labels" or not wanted.encoder.startswith(family):
        raise TextError(
            f"{directory} is a {shown(kind)}, but the flow was trained with {wanted.encoder!r}. "
            "Give the text encoder that belongs to the checkpoint."
        )
    width = config.get("d_model" if family == "t5" else "hidden_size")
    if width is None:
        inner = config.get("text_config")
        width = inner.get("hidden_size") if isinstance(inner, dict) else None
    if width != wanted.channels:
        raise TextError(
            f"{directory}: the text encoder's features are {shown(width)} wide, but the flow was "
            f"trained with {wanted.channels}. Give the text encoder that belongs to the checkpoint."
        )


def _t5_tensors(checkpoint: Checkpoint) -> dict[str, SourceTensor]:
    """The tensors of the encoder, without decoder, head and the copy of the embedding table."""
    kept = {}
    for name, tensor in checkpoint.tensors.items():
        if re.match(r"decoder\.|lm_head\.", name) or name == "encoder.embed_tokens.weight":
            continue
        kept[name] = tensor
    if "shared.weight" not in kept and "encoder.embed_tokens.weight" in checkpoint.tensors:
        kept["shared.weight"] = checkpoint.tensors["encoder.embed_tokens.weight"]
    return kept


def _gemma(
    directory: Path, config: dict[str, Any], checkpoint: Checkpoint
) -> tuple[dict[str, Any], dict[str, SourceTensor]]:
    """Flat settings in mlx-lm's form, and tensors with mlx-lm's names."""
    where = str(directory / "config.json")
    if isinstance(config.get("text_config"), dict):  # a multimodal model
        config = {**_SEEING_DEFAULTS, **config["text_config"], "model_type": "gemma3_text"}
        config.setdefault("vocab_size", _rows(checkpoint))
    flat = dict(config)
    flat.pop("quantization_config", None)
    if "quantization_config" in config:
        raise ConfigError(f"{where}: the weights are quantized; give unquantized ones.")
    rope = flat.pop("rope_parameters", None)
    if rope is not None:
        _flatten_rope(flat, rope, where)
    types = flat.pop("layer_types", None)
    pattern = flat.pop("_sliding_window_pattern", None)
    if flat.get("model_type") == "gemma3_text":
        usual = flat.get("sliding_window_pattern") or pattern or _GEMMA3_PATTERN
        flat["sliding_window_pattern"] = _pattern(types, usual, where)
    elif types is not None and _pattern(types, 2, where) != 2:
        raise ConfigError(f"{where}: layer_types is not Gemma 2's every-second-layer pattern.")
    tensors = {}
    for name, tensor in checkpoint.tensors.items():
        target = _gemma_name(name)
        if target is not None:
            tensors[target] = tensor
    return flat, tensors


def _rows(checkpoint: Checkpoint) -> int:
    for name, tensor in checkpoint.tensors.items():
        if name.endswith("embed_tokens.weight"):
            return tensor.shape[0]
    raise WeightsError(f"{checkpoint.path}: the tensor 'embed_tokens.weight' is missing.")


def _gemma_name(name: str) -> str | None:
    """mlx-lm's name of a tensor; None if a text encoder does not need it."""
    if re.search(r"(^|\.)(vision_tower|multi_modal_projector|lm_head)\.", name):
        return None
    name = re.sub(r"^(model\.)?language_model\.(model\.)?", "", name)
    return "model." + name.removeprefix("model.")


def _flatten_rope(flat: dict[str, Any], rope: Any, where: str) -> None:
    """Convert ``rope_parameters``, one set or one per kind of layer, to mlx-lm's flat settings, in
    place. Errors: ConfigError."""
    if not isinstance(rope, dict):
        raise ConfigError(f"{where}: rope_parameters is not an object.")
    full = rope.get("full_attention", rope)
    local = rope.get("sliding_attention", rope)
    for name, part in (("full_attention", full), ("sliding_attention", local)):
        if not isinstance(part, dict) or "rope_theta" not in part:
            raise ConfigError(f"{where}: rope_parameters has no rope_theta for {name}.")
    flat["rope_theta"] = full["rope_theta"]
    if flat.get("model_type") == "gemma3_text":
        flat["rope_local_base_freq"] = local["rope_theta"]
    elif full["rope_theta"] != local["rope_theta"]:
        raise ConfigError(f"{where}: rope_parameters has two rope_theta, but Gemma 2 has one.")
    if local.get("rope_type", "default") != "default":
        raise ConfigError(f"{where}: scaled positions of sliding layers are not supported.")
    if full.get("rope_type", "default") != "default":
        if flat.get("model_type") != "gemma3_text":
            raise ConfigError(f"{where}: scaled positions are not supported for Gemma 2.")
        scaling = {k: v for k, v in full.items() if k != "rope_theta"}
        flat["rope_scaling"] = {**scaling, "type": scaling["rope_type"]}
    for key in ("rope_theta", "rope_local_base_freq"):
        if not is_number(flat.get(key, 1.0), 1e-30, 1e30):
            raise ConfigError(f"{where}: {key} is {shown(flat[key])}; expected a number above 0.")


def _pattern(types: Any, usual: int, where: str) -> int:
    """The period of layers with global attention, from the list of layer types, else ``usual``.
    Errors: ConfigError."""
    if type(usual) is not int or not 1 <= usual <= 1 << 16:
        raise ConfigError(f"{where}: sliding_window_pattern is {shown(usual)}; expected a number.")
    if types is None:
        return usual
    if not isinstance(types, list) or len(types) > 1000:
        raise ConfigError(f"{where}: layer_types is {shown(types)}; expected a list of names.")
    layers = [t == "full_attention" for t in types]
    pattern = layers.index(True) + 1 if True in layers else usual
    if any(full != ((i + 1) % pattern == 0) for i, full in enumerate(layers)):
        raise ConfigError(f"{where}: layer_types follows no regular pattern.")
    return pattern


def _check_shapes(
    checkpoint: Checkpoint, tensors: dict[str, SourceTensor], expected: dict[str, Any]
) -> None:
    for name, array in expected.items():
        if name not in tensors:
            raise WeightsError(
                f"{checkpoint.path}: the tensor {name!r} of shape {array.shape} is missing."
            )
    for name, tensor in tensors.items():
        if name not in expected:
            raise WeightsError(
                f"{tensor.file.path}: the tensor {tensor.name!r} does not belong to this encoder."
            )
        if tensor.shape != expected[name].shape or tensor.dtype not in FLOATS:
            raise WeightsError(
                f"{tensor.file.path}: {tensor.name!r} has shape {tensor.shape} and type "
                f"{tensor.dtype}; the configuration says {expected[name].shape} and floats."
            )
