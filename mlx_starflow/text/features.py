"""The interface of text encoders and their result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import mlx.core as mx

from ..config import TextConfig
from ..errors import TextError

_NAMED = 6  # parts of a prompt that one sentence names


class Cut(NamedTuple):
    """A prompt that was cut because it is longer than the model's text length."""

    prompt: int  # index of the prompt
    text: str  # the part of its text, template included, that was left out

    def warning(self, length: int) -> str:
        """A sentence that says where the prompt was cut. ``length``: the model's text length in
        tokens."""
        words = self.text.split()
        first = " ".join(words[:4]) + (" ..." if len(words) > 4 else "")
        return (
            f"The prompt is longer than the {length} tokens this model reads; "
            f"it was cut before {first[:60]!r}."
        )


class Unread(NamedTuple):
    """A prompt with characters that are not in the tokenizer's vocabulary."""

    prompt: int  # index of the prompt
    parts: tuple[str, ...]  # the parts of its text that became the unknown token

    def warning(self) -> str:
        """A sentence that names the first of the parts."""
        named = ", ".join(repr(part[:20]) for part in self.parts[:_NAMED])
        more = f" and {len(self.parts) - _NAMED} more" if len(self.parts) > _NAMED else ""
        return f"The text encoder does not know {named}{more}; the model draws the other words."


@dataclass(frozen=True)
class TextFeatures:
    """The features of N prompts."""

    features: mx.array  # (N, L, D) float32, one row of L tokens per prompt
    cuts: tuple[Cut, ...] = ()  # prompts that were longer than L tokens
    unread: tuple[Unread, ...] = ()  # prompts with characters that the tokenizer does not know


class TextEncoder(Protocol):
    """A text encoder: prompts to features."""

    config: TextConfig

    def encode(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> TextFeatures:
        """Features (N, L, D) of N prompts; "" is the null caption. ``fps``: frames per second of
        clips, 0 for pictures."""

    def cuts(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> tuple[Cut, ...]:
        """The prompts that are longer than the model's text length."""

    def unread(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> tuple[Unread, ...]:
        """The prompts with characters that the tokenizer does not know."""


def stacked(rows: list[mx.array], config: TextConfig) -> mx.array:
    """N arrays (L, D) as one array (N, L, D); N may be 0."""
    return mx.stack(rows) if rows else mx.zeros((0, config.length, config.channels))


def listed(prompts: Sequence[str]) -> list[str]:
    """The prompts as a list. Errors: TextError for a single string or other types."""
    if isinstance(prompts, str) or not all(isinstance(p, str) for p in prompts):
        raise TextError(f"The prompts are {prompts!r:.80}; expected a list of strings.")
    return list(prompts)
