"""The registry of text encoders: "encoder" in a model's text settings selects how it is loaded.

To add a kind, write a file with a function from token ids to features and add a row to ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from ..bundle.load import load_component
from ..config import TextConfig
from ..device.shared import Share
from ..errors import ConfigError, TextError
from ..files.fields import Fields, shown
from ..files.json import read_json
from .encoder import Embed, PromptEncoder
from .features import TextEncoder
from .gemma import MODEL_TYPES as GEMMA_TYPES
from .gemma import GemmaHidden, build_gemma, load_table
from .labels import LabelEncoder
from .t5 import T5Config, T5Encoder, shard_t5, t5_cuts
from .tokenizer import PromptTokenizer


@dataclass(frozen=True)
class Kind:
    """A kind of text encoder with a directory of files."""

    model_types: tuple[str, ...]  # allowed values of "model_type" in its config.json
    width: str  # the key in config.json for the width of its features
    load: Callable[[Path, dict[str, Any], mx.Dtype | None], Embed]
    pads: bool = False  # True: it can also compute features for padding tokens
    # Loads a rank's share of it; None: every rank has all of it.
    load_share: Callable[[Path, dict[str, Any], mx.Dtype | None, Share], Embed] | None = None


def _load_t5(
    directory: Path,
    settings: dict[str, Any],
    dtype: mx.Dtype | None,
    share: Share | None = None,
) -> Embed:
    cuts = None if share is None else t5_cuts(T5Config.from_dict(settings), share)
    module = load_component(
        directory, lambda data: T5Encoder(T5Config.from_dict(data)), dtype=dtype, cuts=cuts
    )
    model = cast(T5Encoder, module)
    if share is not None:
        shard_t5(model, share, loaded=True)
    return lambda ids: model(ids[None])[0]


def _load_gemma(directory: Path, settings: dict[str, Any], dtype: mx.Dtype | None) -> Embed:
    model = load_component(directory, build_gemma, dtype=dtype)
    return GemmaHidden(model, int(settings.get("sliding_window") or 0))


def _load_table(directory: Path, settings: dict[str, Any], dtype: mx.Dtype | None) -> Embed:
    return load_table(directory, settings)


KINDS: dict[str, Kind] = {
    "t5": Kind(("t5",), "d_model", _load_t5, load_share=_load_t5),
    "gemma": Kind(GEMMA_TYPES, "hidden_size", _load_gemma),
    "gemma_tokens": Kind(GEMMA_TYPES, "hidden_size", _load_table, pads=True),
}
LABELS = "labels"  # class names; has no files


def load_encoder(
    directory: Path | str | None,
    config: TextConfig,
    dtype: mx.Dtype | None = None,
    share: Share | None = None,
) -> TextEncoder:
    """Load the text encoder of a bundle.

    ``directory``: the bundle's text_encoder component, None for class labels. ``dtype``: of its
    products; None: as stored, float32 on a CPU. ``share``: load a rank's share of a T5.
    Errors: TextError if the encoder has another type or width than the flow was trained with;
    ConfigError and WeightsError for a damaged component.
    """
    if config.encoder == LABELS:
        return LabelEncoder(config)
    if config.encoder not in KINDS:
        known = ", ".join([*KINDS, LABELS])
        raise ConfigError(f"text: encoder is {config.encoder!r:.60}; expected one of {known}.")
    if directory is None:
        raise TextError(
            f"The model needs a text encoder ({config.encoder}), but config.json names none."
        )
    directory, kind = Path(directory), KINDS[config.encoder]
    settings = _read_config(directory / "config.json")
    _check(directory, settings, config, kind)
    tokenizer = PromptTokenizer(directory)
    rows = Fields(settings, str(directory / "config.json")).whole("vocab_size", None, low=1)
    if share is not None and kind.load_share is not None:
        embed = kind.load_share(directory, settings, dtype, share)
    else:
        embed = kind.load(directory, settings, dtype)
    return PromptEncoder(config, tokenizer, embed, rows)


def _check(directory: Path, settings: dict[str, Any], config: TextConfig, kind: Kind) -> None:
    """Check that type and width of the encoder are those the flow was trained with."""
    found = settings.get("model_type")
    if found not in kind.model_types:
        raise TextError(
            f"{directory} holds a text encoder of type {shown(found)}; this model needs "
            f"{' or '.join(kind.model_types)}."
        )
    width = settings.get(kind.width)
    if width != config.channels:
        raise TextError(
            f"{directory}: the text encoder's features are {shown(width)} wide, but the flow was "
            f"trained with {config.channels}. Give the encoder that belongs to the checkpoint."
        )
    if not config.masked and not kind.pads:
        raise ConfigError(
            "text: 'masked' is false, but the encoder "
            f"{config.encoder!r} computes no features for padding tokens; expected true."
        )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return Fields(read_json(path), str(path)).data
    except FileNotFoundError:
        raise TextError(f"{path} is missing. Convert or download the model again.") from None
