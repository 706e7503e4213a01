"""Prompts to token ids, with the same results as transformers' AutoTokenizer.

transformers takes about a second to import; the ``tokenizers`` library that it uses reads the same
``tokenizer.json`` in milliseconds. This module adds what transformers adds to it: special tokens,
truncation that keeps them, and the padding token and side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TextError
from ..files.fields import Fields
from ..files.json import read_json
from ..files.regular import is_regular, read_regular
from .tokenizer_rules import check_growth, check_tokenizer

MAX_BYTES = 128 << 20  # of tokenizer.json; Gemma's has 33 MB
MAX_SETTINGS = 16 << 20  # of tokenizer_config.json, which may list thousands of tokens
MAX_CHARACTERS = 100_000  # of a prompt


@dataclass(frozen=True)
class Tokens:
    """One tokenised prompt."""

    ids: tuple[int, ...]  # without padding
    cut: str  # the end (or beginning) of the text that was left out; "" if nothing was
    unread: tuple[str, ...] = ()  # parts of the text that became the tokenizer's unknown token


class PromptTokenizer:
    """A ``tokenizer.json`` with the padding and truncation of its ``tokenizer_config.json``.

    Attributes: ``pad_id``; ``pad_left`` (padding stands before the tokens); ``cut_left`` (a text
    that is too long loses its beginning); ``before`` and ``after``, special ids around every text.
    Errors: TextError for a directory without a readable tokenizer or without a padding token.
    """

    def __init__(self, directory: Path) -> None:
        from tokenizers import Tokenizer

        path = directory / "tokenizer.json"
        if not is_regular(path):
            raise TextError(
                f"{path} is missing. Copy the tokenizer files of the text encoder there, or "
                "convert the text encoder again from a directory that has tokenizer.json."
            )
        self._where = str(path)
        with _explained(f"{path} is not a tokenizer", "Download it again."):
            text = read_regular(path, MAX_BYTES).decode("utf-8")
            self._tokenizer = Tokenizer.from_str(text)
            # A file that was saved after use may contain the padding and truncation of that use.
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        check_tokenizer(self._tokenizer, str(path))
        settings = _read_settings(directory / "tokenizer_config.json")
        family = settings.text("tokenizer_class", "")
        left = "left" if family.startswith("Gemma") else "right"
        sides = ("left", "right")
        self.pad_left = settings.text("padding_side", left, one_of=sides) == "left"
        self.cut_left = settings.text("truncation_side", "right", one_of=sides) == "left"
        self.pad_id = self._pad_id(settings, path)
        self._unknown_id = self._unknown(settings)
        self.before, self.after = self._special_ids(settings)

    def encode(self, text: str, length: int) -> Tokens:
        """At most ``length`` token ids, special tokens included; truncation keeps the special ones.

        Errors: TextError for a text of more than MAX_CHARACTERS, or with surrogates (from bytes
        that are not UTF-8).
        """
        if len(text) > MAX_CHARACTERS:
            raise TextError(
                f"The prompt has {len(text)} characters; at most {MAX_CHARACTERS} are read."
            )
        if not text.isascii():
            _check_text(text)
        with _explained(f"{self._where} cannot encode a text", "Is it the model's own?"):
            check_growth(self._tokenizer, text, self._where)
        encoding = self._encoded(text, special=False)
        room = max(0, length - len(self.before) - len(self.after))
        ids, cut = encoding.ids, ""
        if len(ids) > room and self.cut_left:
            cut = text[: encoding.offsets[len(ids) - room - 1][1]]
            ids = ids[len(ids) - room :]
        elif len(ids) > room:
            cut = text[encoding.offsets[room][0] :]
            ids = ids[:room]
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        parts = (text[a:b].strip() for i, (a, b) in spans if i == self._unknown_id)
        unread = tuple(dict.fromkeys(part for part in parts if part))
        return Tokens((*self.before, *ids, *self.after)[:length], cut, unread)

    def _encoded(self, text: str, special: bool) -> Any:
        with _explained(f"{self._where} cannot encode a text", "Is it the model's own?"):
            return self._tokenizer.encode(text, add_special_tokens=special)

    def pad(self, ids: tuple[int, ...], length: int) -> tuple[int, ...]:
        """The ids with padding up to ``length``, on the side that the tokenizer's settings say."""
        padding = (self.pad_id,) * (length - len(ids))
        return padding + ids if self.pad_left else ids + padding

    def place(self, count: int, length: int) -> slice:
        """The position of ``count`` tokens that were padded to ``length``."""
        return slice(length - count, length) if self.pad_left else slice(0, count)

    def _pad_id(self, settings: Fields, path: Path) -> int:
        token = _content(settings, "pad_token", "<pad>")
        found = self._tokenizer.token_to_id(token) if token else None
        if found is None:
            raise TextError(f"{path} has no padding token {token!r}; its settings must name one.")
        return found

    def _unknown(self, settings: Fields) -> int | None:
        """The id that stands for text outside the vocabulary; None if the tokenizer has none."""
        token = _content(settings, "unk_token", "<unk>")
        return self._tokenizer.token_to_id(token) if token else None

    def _special_ids(self, settings: Fields) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special token ids that are put before and after every text.

        They are found by encoding one text. ``add_bos_token`` and ``add_eos_token`` in the settings
        take precedence over tokenizer.json, as in transformers.
        """
        encoding = self._encoded("a", special=True)
        special = encoding.special_tokens_mask
        first = special.index(0) if 0 in special else len(special)
        last = len(special) - special[::-1].index(0) if 0 in special else len(special)
        before, after = tuple(encoding.ids[:first]), tuple(encoding.ids[last:])
        if "add_bos_token" in settings:
            before = self._named(settings, "bos_token") if settings.switch("add_bos_token") else ()
        if "add_eos_token" in settings:
            after = self._named(settings, "eos_token") if settings.switch("add_eos_token") else ()
        return before, after

    def _named(self, settings: Fields, key: str) -> tuple[int, ...]:
        token = _content(settings, key, None)
        found = self._tokenizer.token_to_id(token) if token else None
        if found is None:
            raise TextError(f"tokenizer_config.json adds {key}, but {token!r} is not a token.")
        return (found,)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"The prompt has no valid character at position {error.start + 1}: "
            f"{ascii(text[max(0, error.start - 20) : error.end])}. Save or type it as UTF-8."
        ) from None


def _content(settings: Fields, key: str, default: str | None) -> str | None:
    """A special token in the settings: a string, or an object with "content"; null means none."""
    if key in settings.data and settings.data[key] is None:
        return None
    if isinstance(settings.data.get(key), dict):
        return settings.fields(key).text("content", None)
    return settings.text(key, default)


def _read_settings(path: Path) -> Fields:
    try:
        data = read_json(path, MAX_SETTINGS, TextError)
    except FileNotFoundError:
        data = {}
    return Fields(data, str(path), TextError)


@contextmanager
def _explained(what: str, advice: str) -> Iterator[None]:
    """Turn errors of the ``tokenizers`` library into TextError. This includes panics of its Rust
    code, which do not derive from ``Exception``."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interrupt
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"{what} ({str(reason)[:200]}). {advice}") from None
