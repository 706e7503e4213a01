"""Prompts to features: template, tokens, an encoder's features, and the padding around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from ..config import TextConfig
from ..errors import TextError
from .features import Cut, TextFeatures, listed, stacked
from .templates import prompt_text
from .tokenizer import PromptTokenizer, Tokens

Embed = Callable[[mx.array], mx.array]  # token ids (L,) -> features (L, D) float32


class PromptEncoder:
    """A tokenizer and an encoder behind one method. Made by ``load_encoder``."""

    def __init__(
        self, config: TextConfig, tokenizer: PromptTokenizer, embed: Embed, rows: int | None
    ) -> None:
        """``rows``: of the encoder's table of tokens, whose ids are compared with it: one beyond
        would read foreign memory. None: ``embed`` does that itself."""
        self.config = config
        self._tokenizer = tokenizer
        self._embed = embed
        self._rows = rows

    def encode(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> TextFeatures:
        """Features (N, L, D) of N prompts, "" being the null caption.

        Each prompt is encoded alone, and where padding is masked only its real tokens are:
        its numbers do not depend on its neighbours. Too long a prompt is cut, and the cut reported.
        """
        rows, tokens = [], self._tokens(prompts, aspect_ratio, fps)
        for own in tokens:
            rows.append(self._row(own.ids))
            mx.eval(rows[-1])
        return TextFeatures(stacked(rows, self.config), _cuts(tokens))

    def cuts(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> tuple[Cut, ...]:
        """Which of the prompts ``encode`` would cut, told by their tokens alone."""
        return _cuts(self._tokens(prompts, aspect_ratio, fps))

    def _tokens(self, prompts: Sequence[str], aspect_ratio: str, fps: int) -> list[Tokens]:
        texts = [prompt_text(prompt, self.config, aspect_ratio, fps) for prompt in listed(prompts)]
        return [self._tokenizer.encode(text, self.config.length) for text in texts]

    def _row(self, ids: tuple[int, ...]) -> mx.array:
        """(L, D) of one prompt's real tokens, padded."""
        length = self.config.length
        if not self.config.masked:
            ids = self._tokenizer.pad(ids, length)
        largest = max(ids, default=0)
        if self._rows is not None and largest >= self._rows:
            raise TextError(
                f"The tokenizer gives the token {largest}, and the text encoder knows "
                f"{self._rows} tokens. Are tokenizer.json and the weights of one model?"
            )
        if not self.config.masked:
            return self._embed(mx.array(ids))
        row = mx.zeros((length, self.config.channels))
        if ids:  # a tokenizer without special tokens turns "" into nothing
            row[self._tokenizer.place(len(ids), length)] = self._embed(mx.array(ids))
        return row


def _cuts(tokens: Sequence[Tokens]) -> tuple[Cut, ...]:
    return tuple(Cut(i, own.cut) for i, own in enumerate(tokens) if own.cut)
