"""From prompts to what the functions of an export take: text features, or labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..errors import TextError, UsageError
from ..text.tokenizer import PromptTokenizer
from .calls import Calls


class Prompts:
    """The text settings of an export."""

    def __init__(self, directory: Path, data: dict[str, Any], calls: Calls) -> None:
        self._text: dict[str, Any] | None = data["text"]
        self._classes: int = data["classes"]
        self._calls = calls
        self._tokenizer: PromptTokenizer | None = None
        if self._text is not None and "tokenizer" in self._text:
            self._tokenizer = PromptTokenizer((directory / self._text["tokenizer"]).parent)

    def context(self, prompts: Sequence[str]) -> dict[str, mx.array]:
        """caption (B, L, D) and null (1, L, D) of prompts, or labels (B,), or nothing."""
        if self._text is not None:
            rows = mx.concatenate([self.features(prompt) for prompt in (*prompts, "")])
            return {"caption": rows[:-1], "null": rows[-1:]}
        if self._classes:
            return {"labels": mx.array([self._label(p) for p in prompts], dtype=mx.int32)}
        if any(prompts):
            raise UsageError("This model is unconditional: it takes no prompt. Leave it out.")
        return {}

    def ids(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a prompt, special tokens included. Errors: TextError."""
        text = self._text
        if text is None or self._tokenizer is None:
            raise TextError("This export has no tokenizer.")
        whole = f"{text['prefix']}{prompt}{text['suffix']}"
        found = self._tokenizer.encode(whole, text["length"]).ids
        return found if text["masked"] else self._tokenizer.pad(found, text["length"])

    def features(self, prompt: str) -> mx.array:
        """Text features (1, L, D) of a prompt; "" is the null caption. Errors: TextError."""
        text = self._text
        if text is None:
            raise UsageError("This model takes no text.")
        if "labels" in text:
            place = self._class(prompt.strip())
            return (mx.arange(text["channels"]) == place).astype(mx.float32)[None, None]
        ids = self.ids(prompt)
        if not ids:
            return mx.zeros((1, text["length"], text["channels"]))
        return self._calls("text", {"ids": mx.array(ids)})[0][None]

    def _class(self, name: str) -> int:
        text = self._text or {}
        if not name:
            return text["classes"]
        if name in text["labels"]:
            return text["labels"].index(name)
        return _number(name, text["classes"])

    def _label(self, prompt: str) -> int:
        return _number(prompt.strip(), self._classes) if prompt.strip() else -1


def _number(name: str, classes: int) -> int:
    if name.isdecimal() and len(name) < 10 and int(name) < classes:
        return int(name)
    raise TextError(f"{name!r:.80} is not a class of this model: give a name or a number below "
                    f"{classes}.")  # fmt: skip
