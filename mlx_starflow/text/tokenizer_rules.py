"""Limits on the rules in a tokenizer.json, which could make every prompt very long.

A file of 3 KB can replace every letter by a thousand letters, several times in a row. The rules
that lengthen text are checked here; the ``tokenizers`` library checks the vocabulary.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

from ..errors import TextError
from ..files.fields import shown
from ..files.json import JSONError, parse_json

MAX_GROWTH = 64  # largest factor by which all replacements together may lengthen a text
MAX_STEPS = 32  # splitting rules, or pieces of a template
MAX_NORMALIZERS = 1000  # a tokenizer with a small vocabulary has one for each synonym
MAX_CONTENT = 100  # characters in the replacement of a regular expression
MAX_PATTERN = 2000  # characters
# Normalizer -> most characters that it makes of one.
_NORMALIZERS = {
    "Sequence": 1, "Precompiled": 1, "Replace": 1, "Prepend": 1, "Strip": 1, "StripAccents": 1,
    "NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 3, "BertNormalizer": 4, "Nmt": 1,
    "ByteLevel": 2,
}  # fmt: skip


def check_tokenizer(tokenizer: Any, where: str) -> None:
    """Raise a TextError if the rules of a loaded ``tokenizers.Tokenizer`` could make a text too
    long. ``where``: the file, for messages."""
    growth, precompiled, unicode_forms = 1, 0, 0
    normalizers = _settings(tokenizer.normalizer, where)
    for step in _steps(normalizers, "normalizers", where, MAX_NORMALIZERS):
        kind = step.get("type")
        if kind not in _NORMALIZERS:
            raise TextError(f"{where}: the normalizer {shown(kind)} is unknown.")
        if kind == "Replace":
            growth *= _replacement(step, where)
        elif kind == "Prepend" and len(str(step.get("prepend", ""))) > MAX_GROWTH:
            raise TextError(
                f"{where}: a normalizer prepends more than {MAX_GROWTH} characters to a text."
            )
        elif kind == "Precompiled":
            precompiled += 1
            check_charsmap(step.get("precompiled_charsmap"), where)
        elif kind in ("NFKC", "NFKD"):
            unicode_forms += 1
    if growth > MAX_GROWTH or precompiled > 1 or unicode_forms > 2:
        raise TextError(
            f"{where}: its normalizers would make a text more than {MAX_GROWTH} times as long. "
            "It is damaged or malicious; download it again."
        )
    for step in _steps(_settings(tokenizer.pre_tokenizer, where), "pretokenizers", where):
        _pattern(step.get("pattern"), where)
    for step in _steps(_settings(tokenizer.post_processor, where), "processors", where):
        _template(step, where)


def check_charsmap(text: Any, where: str) -> None:
    """Raise a TextError if the table of a "Precompiled" normalizer is malformed. It has a size, a
    trie of so many bytes, and texts."""
    try:
        data = base64.b64decode(text or "", validate=True)
        (size,) = struct.unpack_from("<I", data)
    except (ValueError, TypeError, struct.error):
        size, data = -1, b""
    if size < 0 or size % 4 or 4 + size > len(data):
        raise TextError(f"{where}: its table of characters (precompiled_charsmap) is damaged.")


def _settings(part: Any, where: str) -> Any:
    """The settings of a part of the tokenizer, as the library stores them. Errors: TextError."""
    if part is None:
        return {}
    try:
        return parse_json(part.__getstate__(), 16 << 20)
    except (JSONError, AttributeError, TypeError) as error:
        raise TextError(f"{where}: a part of it cannot be read ({error}).") from None


def check_growth(tokenizer: Any, text: str, where: str) -> None:
    """Raise a TextError if normalizing a text makes it more than ``MAX_GROWTH`` times as long. The
    normalizers are applied one by one, so that no step gets a text that is already too long."""
    steps = getattr(tokenizer, "normalizer", None)
    if steps is None or not hasattr(steps, "__len__"):
        return
    most = MAX_GROWTH * max(len(text), 16)
    for i in range(len(steps)):
        text = steps[i].normalize_str(text)
        if len(text) > most:
            raise TextError(
                f"{where}: its normalizers make a text more than {MAX_GROWTH} times as long. "
                "It is damaged or malicious; download it again."
            )


def _steps(
    settings: Any, inner: str, where: str, most: int = MAX_STEPS
) -> Iterator[dict[str, Any]]:
    """The settings of every step, including those inside sequences."""
    waiting, count = [settings], 0
    while waiting:
        step = waiting.pop()
        count += 1
        if count > most:
            raise TextError(f"{where}: it has more than {most} {inner}.")
        if not isinstance(step, dict):
            raise TextError(f"{where}: one of its {inner} is {shown(step)}.")
        if step.get("type") == "Sequence" and isinstance(step.get(inner), list):
            waiting += step[inner]
        elif step:
            yield step


def _replacement(step: dict[str, Any], where: str) -> int:
    pattern = _pattern(step.get("pattern"), where)
    content = step.get("content")
    if not isinstance(content, str):
        raise TextError(
            f"{where}: the replacement of a normalizer is {shown(content)}; expected a text."
        )
    exact = isinstance(step["pattern"], dict) and "String" in step["pattern"] and pattern
    if exact:
        return max(1, -(-len(content) // len(pattern)))
    # How much a regular expression matches depends on the text; see ``check_growth``.
    if len(content) > MAX_CONTENT:
        raise TextError(f"{where}: a normalizer's replacement has over {MAX_CONTENT} characters.")
    return 1


def _pattern(pattern: Any, where: str) -> str:
    text = next(iter(pattern.values()), "") if isinstance(pattern, dict) else pattern or ""
    if not isinstance(text, str) or len(text) > MAX_PATTERN:
        raise TextError(f"{where}: a pattern in it has more than {MAX_PATTERN} characters.")
    return text


def _template(step: dict[str, Any], where: str) -> None:
    pieces = step.get("single")
    if not isinstance(pieces, list):
        return
    texts = sum(isinstance(piece, dict) and "Sequence" in piece for piece in pieces)
    special = step.get("special_tokens")
    ids = [len(s.get("ids") or ()) for s in special.values()] if isinstance(special, dict) else []
    if len(pieces) > MAX_STEPS or texts > 1 or sum(ids) > MAX_STEPS:
        raise TextError(f"{where}: its template repeats the text, or has too many pieces.")
