"""The text encoder as functions of token ids, and what a host needs to make these from a prompt."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..config import TextConfig
from ..errors import UsageError
from ..generation.components import Components
from ..text import TextEncoder, prompt_text
from ..text.encoder import PromptEncoder
from ..text.labels import LabelEncoder
from ..text.registry import LABELS
from .functions import Array, Function

FILES = ("tokenizer.json", "tokenizer_config.json")
FOLDER = "tokenizer"
_MARK = "\ufffcprompt\ufffc"


def encoder_of(components: Components) -> TextEncoder | None:
    """The model's text encoder; None for a model without text, and for one whose encoder is not
    part of it, where the host brings the features."""
    text = components.config.text
    if text is None or (text.encoder != LABELS and not components.has("text_encoder")):
        return None
    return components.text_encoder


def text_functions(components: Components) -> list[Function]:
    """Token ids (n,), special tokens included, -> features (L, D) of a prompt, for every n up to
    the model's text length. None for models without an encoder's weights."""
    encoder = encoder_of(components)
    if not isinstance(encoder, PromptEncoder):
        return []
    length = encoder.config.length

    def features(ids: mx.array) -> list[mx.array]:
        if not encoder.config.masked:
            return [encoder.embed(ids)]
        n = ids.shape[0]
        before = encoder.tokenizer.place(n, length).start
        pad = [(before, length - n - before), (0, 0)]
        return [mx.pad(encoder.embed(ids), pad)]

    ids = Array("ids", (length,), mx.int32)
    every = encoder.config.masked
    return [Function("text", (ids,), ("features",), features, every_length=every)]


def text_settings(components: Components, aspect_ratio: str) -> dict[str, Any] | None:
    """How a prompt becomes token ids or features; None for a model without text."""
    encoder = encoder_of(components)
    if encoder is None:
        return None
    config = encoder.config
    settings: dict[str, Any] = {
        "encoder": config.encoder,
        "length": config.length,
        "channels": config.channels,
    }
    if isinstance(encoder, LabelEncoder):
        return settings | {"labels": list(config.labels), "classes": encoder.classes}
    if not isinstance(encoder, PromptEncoder):
        raise UsageError(f"The text encoder {config.encoder!r} cannot be exported.")
    tokenizer = encoder.tokenizer
    prefix, suffix = _template(config, aspect_ratio)
    null = tokenizer.encode(f"{prefix}{suffix}", config.length).ids
    if not config.masked:
        null = tokenizer.pad(null, config.length)
    return settings | {
        "tokenizer": f"{FOLDER}/{FILES[0]}",
        "prefix": prefix,
        "suffix": suffix,
        "before": list(tokenizer.before),
        "after": list(tokenizer.after),
        "null_ids": list(null),
        "masked": config.masked,
        "pad_id": tokenizer.pad_id,
        "pad_left": tokenizer.pad_left,
        "cut_left": tokenizer.cut_left,
    }


def _template(config: TextConfig, aspect_ratio: str) -> tuple[str, str]:
    """The text that stands before and after the prompt."""
    prefix, suffix = prompt_text(_MARK, config, aspect_ratio).split(_MARK)
    return prefix, suffix


def copy_tokenizer(components: Components, directory: Path) -> list[str]:
    """Copy the tokenizer's files. Returns their names inside the export."""
    if not isinstance(encoder_of(components), PromptEncoder):
        return []
    (directory / FOLDER).mkdir()
    copied = []
    for name in FILES:
        source = components.path("text_encoder") / name
        if source.is_file():
            shutil.copyfile(source, directory / FOLDER / name)
            copied.append(f"{FOLDER}/{name}")
    return copied
