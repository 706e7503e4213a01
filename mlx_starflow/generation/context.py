"""The context of a flow (text features or labels) for prompts, with and without guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..bundle.vocabulary import read_vocabulary
from ..errors import UsageError
from ..flow import Context
from ..text import Cut, Unread
from .components import Components


@dataclass(frozen=True)
class PromptRows:
    """One row per distinct prompt, and a last row for the negative prompt."""

    prompts: tuple[str, ...]  # the distinct prompts, in the order of the rows
    rows: mx.array | None  # (P + 1, L, D) text features, (P + 1,) int labels, None: unconditional
    is_text: bool
    negative: str = ""  # the prompt of the last row; "" is the null caption
    cuts: tuple[Cut, ...] = ()  # prompts that were longer than the model's text length
    unread: tuple[Unread, ...] = ()  # prompts with characters that the tokenizer does not know

    def own(self, prompts: Sequence[str]) -> Context:
        """One row per prompt, (B, L, D) or (B,), the context for ``log_prob`` and ``denoise``."""
        if self.rows is None:
            return None
        known = [*self.prompts, self.negative]
        return self.rows[mx.array([known.index(prompt) for prompt in prompts])]

    def for_sampling(self, prompts: Sequence[str], guidance: float) -> Context:
        """The context for ``invert`` and ``encode``: with guidance and text (2B, L, D), the rows of
        the prompts followed by those of the negative prompt; else as ``own``."""
        own = self.own(prompts)
        if own is None or not (guidance and self.is_text):
            return own
        return self.guided(own)

    def guided(self, own: mx.array) -> mx.array:
        """Rows (B, L, D) of prompts followed by B rows of the negative prompt, (2B, L, D). Errors:
        UsageError for an unconditional model."""
        if self.rows is None:
            raise UsageError("guidance needs a prompt or a class; this model is unconditional.")
        return mx.concatenate([own, mx.repeat(self.rows[-1:], own.shape[0], axis=0)])


def unknown_words(components: Components, prompts: Sequence[str]) -> tuple[str, ...]:
    """A warning for each prompt with words that the model was not trained with. Empty for a model
    without a vocabulary."""
    vocabulary = read_vocabulary(components.directory)
    if vocabulary is None:
        return ()
    notes = (vocabulary.note(prompt) for prompt in dict.fromkeys(prompts))
    return tuple(note for note in notes if note)


def tokenizer_notes(
    components: Components, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
) -> tuple[str, ...]:
    """Warnings about prompts that are longer than the model's text length or have characters that
    the tokenizer does not know. Loads the text encoder."""
    encoder = components.text_encoder
    if encoder is None:
        return ()
    different = tuple(dict.fromkeys(prompts))
    more = {"fps": fps} if fps else {}
    cuts = encoder.cuts(different, aspect_ratio, **more)
    return _warnings(components, cuts, encoder.unread(different, aspect_ratio, **more))


def row_notes(components: Components, rows: PromptRows) -> tuple[str, ...]:
    """The same warnings about prompts that are already encoded."""
    return _warnings(components, rows.cuts, rows.unread)


def _warnings(
    components: Components, cuts: Sequence[Cut], unread: Sequence[Unread]
) -> tuple[str, ...]:
    text = components.config.text
    notes = tuple(cut.warning(text.length) for cut in cuts) if text else ()
    if read_vocabulary(components.directory) is not None:
        return notes  # ``unknown_words`` names them, with the nearest word
    return notes + tuple(dict.fromkeys(prompt.warning() for prompt in unread))


def prompt_rows(
    components: Components,
    prompts: Sequence[str],
    aspect_ratio: str = "1:1",
    negative: str = "",
    fps: int = 0,
    prefix: str = "",
) -> PromptRows:
    """Encode every distinct prompt once. ``fps``: frames per second of clips, 0 for pictures.
    ``prefix``: text before every caption except the null caption. Errors: UsageError for a prompt
    to an unconditional model and for an unknown class number, TextError for an unknown class
    name."""
    different = tuple(dict.fromkeys(prompts))
    flow = components.flow_config
    if flow.text_channels:
        encoder = components.text_encoder
        if encoder is None:
            raise UsageError("This model needs text, but its bundle has no text encoder.")
        captions = [f"{prefix}{prompt}" for prompt in different]
        more = {"fps": fps} if fps else {}
        encoded = encoder.encode([*captions, negative], aspect_ratio=aspect_ratio, **more)
        mx.eval(encoded.features)
        return PromptRows(different, encoded.features, True, negative, encoded.cuts, encoded.unread)
    if flow.num_classes:
        labels = [components.label(prompt) for prompt in (*different, "")]
        return PromptRows(different, mx.array(labels, dtype=mx.int32), False)
    if any(different):
        raise UsageError("This model is unconditional: it takes no prompt. Leave it out.")
    return PromptRows(different, None, False)
