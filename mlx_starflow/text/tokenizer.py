"""Prompts to token ids, with the numbers of transformers' AutoTokenizer but without its import.

transformers takes about a second to import; the ``tokenizers`` library under it reads the same
``tokenizer.json`` in milliseconds. What transformers adds on top is done here: special tokens,
truncation that keeps them, and the side and token of the padding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TextError


@dataclass(frozen=True)
class Tokens:
    """One tokenised prompt."""

    ids: tuple[int, ...]  # the real tokens, at most as many as were asked for
    cut: str  # the end (or beginning) of the text that had no room; "" when all of it fitted


class PromptTokenizer:
    """A ``tokenizer.json`` with the padding and truncation of its ``tokenizer_config.json``.

    Attributes: ``pad_id``; ``pad_left`` (padding stands before the tokens).
    Errors: TextError for a directory without a readable tokenizer or without a padding token.
    """

    def __init__(self, directory: Path) -> None:
        from tokenizers import Tokenizer

        path = directory / "tokenizer.json"
        if not path.is_file():
            raise TextError(
                f"{path} is missing. Copy the tokenizer files of the text encoder there, or "
                "convert the text encoder again from a directory that has tokenizer.json."
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for any malformed file
            raise TextError(f"{path} is not a tokenizer ({error}). Download it again.") from error
        # Files saved after use may carry the settings of their last call.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        settings = _read_settings(directory / "tokenizer_config.json")
        family = str(settings.get("tokenizer_class", ""))
        side = settings.get("padding_side", "left" if family.startswith("Gemma") else "right")
        self.pad_left = side == "left"
        self._cut_left = settings.get("truncation_side", "right") == "left"
        self.pad_id = self._pad_id(settings, path)
        self._before, self._after = self._special_ids(settings)

    def encode(self, text: str, length: int) -> Tokens:
        """At most ``length`` ids, special tokens included; truncation keeps the special ones.

        Errors: TextError for text with halves of surrogate pairs, as undecodable bytes leave them.
        """
        if not text.isascii():
            _check_text(text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        room = max(0, length - len(self._before) - len(self._after))
        ids, cut = encoding.ids, ""
        if len(ids) > room and self._cut_left:
            cut = text[: encoding.offsets[len(ids) - room - 1][1]]
            ids = ids[len(ids) - room :]
        elif len(ids) > room:
            cut = text[encoding.offsets[room][0] :]
            ids = ids[:room]
        return Tokens((*self._before, *ids, *self._after)[:length], cut)

    def pad(self, ids: tuple[int, ...], length: int) -> tuple[int, ...]:
        """The ids with padding up to ``length``, on the tokenizer's side."""
        padding = (self.pad_id,) * (length - len(ids))
        return padding + ids if self.pad_left else ids + padding

    def place(self, count: int, length: int) -> slice:
        """Where ``count`` real tokens stand among ``length`` padded ones."""
        return slice(length - count, length) if self.pad_left else slice(0, count)

    def _pad_id(self, settings: dict[str, Any], path: Path) -> int:
        token = _content(settings.get("pad_token", "<pad>"))
        found = self._tokenizer.token_to_id(token) if token else None
        if found is None:
            raise TextError(f"{path} has no padding token {token!r}; its settings must name one.")
        return found

    def _special_ids(self, settings: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that stand before and after every text.

        They are read off one encoded text; ``add_bos_token`` and ``add_eos_token`` in the settings
        overrule the file, as they do in transformers.
        """
        encoding = self._tokenizer.encode("a", add_special_tokens=True)
        special = encoding.special_tokens_mask
        first = special.index(0) if 0 in special else len(special)
        last = len(special) - special[::-1].index(0) if 0 in special else len(special)
        before, after = tuple(encoding.ids[:first]), tuple(encoding.ids[last:])
        if "add_bos_token" in settings:
            before = self._named(settings, "bos_token") if settings["add_bos_token"] else ()
        if "add_eos_token" in settings:
            after = self._named(settings, "eos_token") if settings["add_eos_token"] else ()
        return before, after

    def _named(self, settings: dict[str, Any], key: str) -> tuple[int, ...]:
        token = _content(settings.get(key))
        found = self._tokenizer.token_to_id(token) if token else None
        if found is None:
            raise TextError(f"tokenizer_config.json adds {key}, but {token!r} is no known token.")
        return (found,)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"The prompt has no valid character at position {error.start + 1}: "
            f"{ascii(text[max(0, error.start - 20) : error.end])}. Save or type it as UTF-8."
        ) from None


def _content(token: str | dict[str, Any] | None) -> str | None:
    """A special token is written as a string or as an object with its content."""
    return token.get("content") if isinstance(token, dict) else token


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TextError(f"{path} is not valid JSON ({error}). Download it again.") from error
    if not isinstance(settings, dict):
        raise TextError(f"{path}: expected an object of settings.")
    return settings
