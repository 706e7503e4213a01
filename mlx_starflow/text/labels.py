"""Class labels as text features: one row per class, and a last row for no class."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import mlx.core as mx

from ..config import TextConfig
from ..errors import TextError
from ..files.fields import shown
from .features import Cut, TextFeatures, Unread, listed, stacked

MAX_SHOWN, MAX_COMPARED = 80, 2000  # limits in the search for a similar name: characters, names


class LabelEncoder:
    """One-hot features of a class, given by name or number; "" for no class.

    Errors: TextError if the configuration is not one for class labels.
    """

    def __init__(self, config: TextConfig) -> None:
        if config.length != 1:
            raise TextError(f"A class label is one token, but the model has {config.length}.")
        if config.labels and len(config.labels) + 1 != config.channels:
            raise TextError(
                f"The model's text has {config.channels} channels, which means "
                f"{config.channels - 1} classes and the null class, but {len(config.labels)} names "
                "are given."
            )
        self.config = config
        self.classes = config.channels - 1
        self._names = config.labels

    def index(self, label: str) -> int:
        """The row of a label: an exact name, else a name in any case, else a number; "" is the
        null row. Errors: TextError with similar names."""
        label = label.strip()
        if not label:
            return self.classes
        if label in self._names:
            return self._names.index(label)
        folded = [name.casefold() for name in self._names]
        if folded.count(label.casefold()) == 1:
            return folded.index(label.casefold())
        if label.isdecimal() and len(label) < 10 and int(label) < self.classes:
            return int(label)
        near = difflib.get_close_matches(label[:MAX_SHOWN].casefold(), folded[:MAX_COMPARED], n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise TextError(
            f"{shown(label)} is not a class of this model: give a class name or a number from 0 to "
            f"{self.classes - 1}, or an empty text for no class.{hint}"
        )

    def cuts(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> tuple[Cut, ...]:
        """Always empty: labels are never cut."""
        return ()

    def unread(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> tuple[Unread, ...]:
        """Always empty: an unknown label is an error."""
        return ()

    def encode(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> TextFeatures:
        """Features (N, 1, classes + 1) of N class names or numbers. Errors: see ``index``."""
        places = mx.arange(self.classes + 1)
        rows = [(places == self.index(p)).astype(mx.float32)[None] for p in listed(prompts)]
        return TextFeatures(stacked(rows, self.config))
