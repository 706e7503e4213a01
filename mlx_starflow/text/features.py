"""What every text encoder gives, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import mlx.core as mx

from ..config import TextConfig
from ..errors import TextError


class Cut(NamedTuple):
    """What a prompt lost because the model's text is shorter."""

    prompt: int  # index of the prompt
    text: str  # the part of its text, template included, that was left out

    def warning(self, length: int) -> str:
        """A sentence for people: where the text ends, not all that is lost."""
        words = self.text.split()
        first = " ".join(words[:4]) + (" ..." if len(words) > 4 else "")
        return (
            f"The prompt is longer than the {length} tokens this model reads; "
            f"it was cut before {first[:60]!r}."
        )


@dataclass(frozen=True)
class TextFeatures:
    """What a flow is conditioned on."""

    features: mx.array  # (N, L, D) float32, one row of L tokens per prompt
    cuts: tuple[Cut, ...] = ()  # prompts that were longer than L tokens


class TextEncoder(Protocol):
    """Prompts to features."""

    config: TextConfig

    def encode(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> TextFeatures:
        """Features (N, L, D) of N prompts, of clips with ``fps`` frames per second or, for 0, of
        pictures; "" is the null caption."""

    def cuts(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> tuple[Cut, ...]:
        """Which of the prompts are longer than the model's text."""


def stacked(rows: list[mx.array], config: TextConfig) -> mx.array:
    """(N, L, D) of N arrays (L, D); N may be 0."""
    return mx.stack(rows) if rows else mx.zeros((0, config.length, config.channels))


def listed(prompts: Sequence[str]) -> list[str]:
    """The prompts as a list. Errors: TextError for one string, which is a sequence of letters."""
    if isinstance(prompts, str) or not all(isinstance(p, str) for p in prompts):
        raise TextError(f"The prompts are {prompts!r:.80}; expected a list of strings.")
    return list(prompts)
