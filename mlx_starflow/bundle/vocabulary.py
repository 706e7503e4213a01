"""The words that a model trained on a closed world knows: vocabulary.json beside its config."""

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
_JOINER = "\u200d"  # zero width: several emoji as one
_TOLD = 5  # unknown words that are named
_LONG = 60  # characters of a prompt, or of one word, that are shown
MAX_WORD = 200  # characters


@dataclass(frozen=True)
class Vocabulary:
    """Every word the model was trained with, and the values of each kind of thing."""

    words: frozenset[str]
    kinds: dict[str, tuple[str, ...]]  # "subject": ("fox", ...), "place": ...

    def unknown(self, prompt: str) -> list[str]:
        """The words of a prompt, in order, that the model has never seen; emoji and other symbols
        count as words."""
        found = dict.fromkeys([*_WORD.findall(prompt.lower()), *_symbols(prompt)])
        return sorted((w for w in found if w not in self.words), key=prompt.lower().find)

    def nearest(self, word: str) -> str | None:
        """The known word that one probably means: for an emoji by its name ("FOX FACE" -> "fox"),
        else by its letters. None where nothing is near."""
        names = [word] if _WORD.fullmatch(word) else _names(word)
        for name in names:
            if name in self.words:
                return name
        letters = sorted(w for w in self.words if w.isalpha())
        near = (difflib.get_close_matches(name, letters, 1, 0.65) for name in names)
        return next((found[0] for found in near if found), None)

    def note(self, prompt: str) -> str | None:
        """A sentence about the unknown words of a prompt; None where it has none."""
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
            f"The model has never seen {', '.join(told)}{more} (in {shown!r}); it draws what it "
            "makes of the other words."
        )


def _symbols(text: str) -> list[str]:
    """Emoji and the like; with what is joined to them (skin tones, variants) they are one word."""
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
    """The words of the names that Unicode gives to symbols, in lower case."""
    names = " ".join(unicodedata.name(c, "") for c in symbols).lower()
    return re.findall(r"[a-z]+", names)


def read_vocabulary(bundle: Path) -> Vocabulary | None:
    """The vocabulary of a bundle; None where it has none. Errors: ConfigError."""
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
