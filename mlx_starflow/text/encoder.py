"""Prompts to text features: template, tokens, encoder, padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from ..config import TextConfig
from ..errors import TextError
from .features import Cut, TextFeatures, Unread, listed, stacked
from .templates import prompt_text
from .tokenizer import PromptTokenizer, Tokens

Embed = Callable[[mx.array], mx.array]  # token ids (L,) -> features (L, D) float32


class PromptEncoder:
    """A tokenizer and a text encoder. Made by ``load_encoder``."""

    def __init__(
        self, config: TextConfig, tokenizer: PromptTokenizer, embed: Embed, rows: int | None
    ) -> None:
        """``rows``: number of rows in the encoder's embedding table. Token ids are checked against
        it, since a larger id would read memory out of bounds. None: ``embed`` checks them."""
        self.config, self.tokenizer, self.embed = config, tokenizer, embed
        self._rows = rows

    def encode(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> TextFeatures:
        """Features (N, L, D) of N prompts; "" is the null caption. ``fps``: frames per second of
        clips, 0 for pictures.

        Each prompt is encoded alone, so its features do not depend on the others. If padding is
        masked, the padding tokens are not encoded and their features are zero. A prompt that is
        too long is cut, and the cut is reported in the result. Errors: TextError.
        """
        rows, tokens = [], self._tokens(prompts, aspect_ratio, fps)
        for own in tokens:
            rows.append(self._row(own.ids))
            mx.eval(rows[-1])
        return TextFeatures(stacked(rows, self.config), _cuts(tokens), _unread(tokens))

    def cuts(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> tuple[Cut, ...]:
        """The cuts that ``encode`` would make, found by tokenizing only."""
        return _cuts(self._tokens(prompts, aspect_ratio, fps))

    def unread(
        self, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
    ) -> tuple[Unread, ...]:
        """What the tokenizer does not know of each prompt, found by tokenizing only."""
        return _unread(self._tokens(prompts, aspect_ratio, fps))

    def _tokens(self, prompts: Sequence[str], aspect_ratio: str, fps: int) -> list[Tokens]:
        texts = [prompt_text(prompt, self.config, aspect_ratio, fps) for prompt in listed(prompts)]
        return [self.tokenizer.encode(text, self.config.length) for text in texts]

    def _row(self, ids: tuple[int, ...]) -> mx.array:
        """Features (L, D) of one prompt from its token ids without padding."""
        length = self.config.length
        if not self.config.masked:
            ids = self.tokenizer.pad(ids, length)
        largest = max(ids, default=0)
        if self._rows is not None and largest >= self._rows:
            raise TextError(
                f"The tokenizer gives the token {largest}, but the text encoder has only "
                f"{self._rows} tokens. Do tokenizer.json and the weights belong to one model?"
            )
        if not self.config.masked:
            return self.embed(mx.array(ids))
        row = mx.zeros((length, self.config.channels))
        if ids:  # empty for "" if the tokenizer adds no special tokens
            row[self.tokenizer.place(len(ids), length)] = self.embed(mx.array(ids))
        return row


def _cuts(tokens: Sequence[Tokens]) -> tuple[Cut, ...]:
    return tuple(Cut(i, own.cut) for i, own in enumerate(tokens) if own.cut)


def _unread(tokens: Sequence[Tokens]) -> tuple[Unread, ...]:
    return tuple(Unread(i, own.unread) for i, own in enumerate(tokens) if own.unread)
