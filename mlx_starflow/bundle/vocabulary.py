"""vocabulary.json of a bundle: the words that a model with a small vocabulary was trained on."""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..files.fields import Fields
from ..files.json import read_json
from ..files.regular import is_regular

FILE = "vocabulary.json"
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_JOINER = "\u200d"  # zero-width joiner: combines several emoji into one
_TOLD = 5  # most unknown words named in a message
_LONG = 60  # most characters of a prompt, or of a word, in a message
MAX_WORD = 200  # characters


@dataclass(frozen=True)
class Vocabulary:
    """All words the model was trained with, and lists of them by kind."""

    words: frozenset[str]
    kinds: dict[str, tuple[str, ...]]  # "subject": ("fox", ...), "place": ...

    def unknown(self, prompt: str) -> list[str]:
        """The words of a prompt that the model was not trained with, in order. Emoji and other
        symbols count as words."""
        found = dict.fromkeys([*_WORD.findall(prompt.lower()), *_symbols(prompt)])
        return sorted((w for w in found if w not in self.words), key=prompt.lower().find)

    def nearest(self, word: str) -> str | None:
        """The known word most similar in spelling; for an emoji, similar to a word of its Unicode
        name ("FOX FACE" -> "fox"). None if none is similar."""
        names = [word] if _WORD.fullmatch(word) else _names(word)
        for name in names:
            if name in self.words:
                return name
        letters = sorted(w for w in self.words if w.isalpha())
        near = (difflib.get_close_matches(name, letters, 1, 0.65) for name in names)
        return next((found[0] for found in near if found), None)

    def note(self, prompt: str) -> str | None:
        """A warning about the unknown words of a prompt; None if there are none."""
        unknown = self.unknown(prompt)
        if not unknown:
            return None
        told = []
        for word in unknown[:_TOLD]:
            near = self.nearest(word)
            told.append(f"{word[:_LONG]!r}" + (f" (nearest: {near!r})" if near else ""))
        more = f" and {len(unknown) - _TOLD} more" if len(unknown) > _TOLD else ""
        shown = prompt if len(prompt) <= _LONG else prompt[:_LONG] + "..."
        return (
            f"The model has never seen {', '.join(told)}{more} (in {shown!r}); unknown words are "
            "unlikely to have the wanted effect."
        )


def _symbols(text: str) -> list[str]:
    """The emoji and other symbols of a text, each with its modifiers (skin tone, variant)."""
    found: list[str] = []
    inside = False
    for character in text:
        kind = unicodedata.category(character)
        belongs = kind in ("Sk", "Mn", "Me") or character == _JOINER
        if inside and (belongs or found[-1].endswith(_JOINER)):
            found[-1] += character
            continue
        inside = kind == "So"
        if inside:
            found.append(character)
    return found


def _names(symbols: str) -> list[str]:
    """The words of the Unicode names of symbols, in lower case."""
    names = " ".join(unicodedata.name(c, "") for c in symbols).lower()
    return re.findall(r"[a-z]+", names)


def read_vocabulary(bundle: Path) -> Vocabulary | None:
    """The vocabulary of a bundle; None if it has none. Errors: ConfigError."""
    path = bundle / FILE
    if not is_regular(path):
        return None
    try:
        data = read_json(path)
    except FileNotFoundError:
        return None
    fields = Fields(data, str(path))
    kinds = {kind: fields.texts(kind, most=MAX_WORD) for kind in fields.data if kind != "words"}
    return Vocabulary(frozenset(fields.texts("words", most=MAX_WORD)), kinds)
