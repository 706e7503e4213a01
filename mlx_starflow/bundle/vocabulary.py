"""The words that a model trained on a closed world knows: vocabulary.json beside its config."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

FILE = "vocabulary.json"


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
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        kinds = {k: tuple(str(v) for v in values) for k, values in data.items()}
        return Vocabulary(frozenset(kinds.pop("words")), kinds)
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path} is not a vocabulary ({error}); convert the model again."
        ) from None
