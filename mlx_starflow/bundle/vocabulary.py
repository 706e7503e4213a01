"""The words that a model trained on a closed world knows: vocabulary.json beside its config."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..files.fields import Fields
from ..files.json import read_json
from ..files.regular import is_regular

FILE = "vocabulary.json"
MAX_WORD = 200  # characters


@dataclass(frozen=True)
class Vocabulary:
    """Every word the model was trained with, and the values of each kind of thing."""

    words: frozenset[str]
    kinds: dict[str, tuple[str, ...]]  # "subject": ("fox", ...), "place": ...

    def unknown(self, prompt: str) -> list[str]:
        """The words of a prompt, in order, that the model has never seen."""
        found = dict.fromkeys(re.findall(r"\w+", prompt.lower()))
        return [word for word in found if word not in self.words]


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
