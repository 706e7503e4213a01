"""Prompts to features: template, tokens, encoder, and the padding around its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..bundle.load import load_component
from ..config import TextConfig
from ..errors import ConfigError, TextError
from ..files.fields import Fields, shown
from ..files.json import read_json
from .features import Cut, TextEncoder, TextFeatures, listed, stacked
from .gemma import GemmaHidden, build_gemma, load_table
from .labels import LabelEncoder
from .t5 import T5Config, T5Encoder
from .templates import prompt_text
from .tokenizer import PromptTokenizer

Embed = Callable[[mx.array], mx.array]  # token ids (L,) -> features (L, D) float32


class PromptEncoder:
    """A tokenizer and an encoder behind one method. Made by ``load_encoder``."""

    def __init__(
        self, config: TextConfig, tokenizer: PromptTokenizer, embed: Embed, rows: int
    ) -> None:
        """``rows``: of the encoder's table of tokens; an id beyond would read foreign memory."""
        self.config = config
        self._tokenizer = tokenizer
        self._embed = embed
        self._rows = rows

    def encode(self, prompts: Sequence[str], aspect_ratio: str = "1:1") -> TextFeatures:
        """Features (N, L, D) of N prompts, "" being the null caption.

        Each prompt is encoded alone, and where padding is masked only its real tokens are:
        its numbers do not depend on its neighbours. Too long a prompt is cut, and the cut reported.
        """
        rows, cuts = [], []
        for i, prompt in enumerate(listed(prompts)):
            text = prompt_text(prompt, self.config, aspect_ratio)
            tokens = self._tokenizer.encode(text, self.config.length)
            if tokens.cut:
                cuts.append(Cut(i, tokens.cut))
            rows.append(self._row(tokens.ids))
            mx.eval(rows[-1])
        return TextFeatures(stacked(rows, self.config), tuple(cuts))

    def _row(self, ids: tuple[int, ...]) -> mx.array:
        """(L, D) of one prompt's real tokens, padded."""
        length = self.config.length
        if not self.config.masked:
            ids = self._tokenizer.pad(ids, length)
        largest = max(ids, default=0)
        if largest >= self._rows:
            raise TextError(
                f"The tokenizer gives the token {largest}, and the text encoder knows "
                f"{self._rows} tokens. Are tokenizer.json and the weights of one model?"
            )
        if not self.config.masked:
            return self._embed(mx.array(ids))
        row = mx.zeros((length, self.config.channels))
        if ids:  # a tokenizer without special tokens turns "" into nothing
            row[self._tokenizer.place(len(ids), length)] = self._embed(mx.array(ids))
        return row


def load_encoder(
    directory: Path | str | None, config: TextConfig, dtype: mx.Dtype | None = None
) -> TextEncoder:
    """The text encoder of a bundle, ready to encode.

    ``directory``: the bundle's text_encoder component, None for class labels; ``dtype``: of its
    products, None as stored (float32 on a CPU).
    Errors: TextError when the encoder is of another kind or width than the flow was trained with;
    ConfigError and WeightsError for a damaged component.
    """
    if config.encoder == "labels":
        return LabelEncoder(config)
    if directory is None:
        raise TextError(f"The model needs a text encoder ({config.encoder}), but names none.")
    directory = Path(directory)
    settings = _read_config(directory / "config.json")
    _check_kind(directory, settings, config)
    tokenizer = PromptTokenizer(directory)
    rows = Fields(settings, str(directory / "config.json")).whole("vocab_size", low=1)
    return PromptEncoder(config, tokenizer, _load(directory, settings, config, dtype), rows)


def _load(
    directory: Path, settings: dict[str, Any], config: TextConfig, dtype: mx.Dtype | None
) -> Embed:
    if config.encoder == "gemma_tokens":
        return load_table(directory, settings)
    if config.encoder == "gemma":
        model = load_component(directory, build_gemma, dtype=dtype)
        return GemmaHidden(model, int(settings.get("sliding_window") or 0))
    model = load_component(directory, lambda data: T5Encoder(T5Config.from_dict(data)), dtype=dtype)
    return lambda ids: model(ids[None])[0]


def _check_kind(directory: Path, settings: dict[str, Any], config: TextConfig) -> None:
    """The encoder on disk must be the one that the flow was trained with, as far as can be told."""
    kinds = ("t5",) if config.encoder == "t5" else ("gemma2", "gemma3_text")
    kind = settings.get("model_type")
    if kind not in kinds:
        raise TextError(
            f"{directory} holds a text encoder of type {shown(kind)}; this model needs "
            f"{' or '.join(kinds)}."
        )
    width = settings.get("d_model" if config.encoder == "t5" else "hidden_size")
    if width != config.channels:
        raise TextError(
            f"{directory}: the text encoder's features are {shown(width)} wide, but the flow was "
            f"trained with {config.channels}. Give the encoder that belongs to the checkpoint."
        )
    if config.encoder != "gemma_tokens" and not config.masked:
        raise ConfigError(
            f"text: 'masked' is false, which only the encoder 'gemma_tokens' allows; the hidden "
            f"states of {config.encoder!r} are computed for the real tokens alone."
        )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return Fields(read_json(path), str(path)).data
    except FileNotFoundError:
        raise TextError(f"{path} cannot be read (it is missing).") from None
