"""What a flow is conditioned on: rows of text features or labels, for prompts and guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..bundle.vocabulary import read_vocabulary
from ..errors import UsageError
from ..flow import Context
from ..text import Cut
from .components import Components


@dataclass(frozen=True)
class PromptRows:
    """One row for each different prompt, and a last one for the prompt that guidance leaves."""

    prompts: tuple[str, ...]  # in the order of the rows, the last row's apart
    rows: mx.array | None  # (P + 1, L, D) text features, (P + 1,) int labels, None: unconditional
    is_text: bool
    negative: str = ""  # the last row's prompt, "" being the null caption
    cuts: tuple[Cut, ...] = ()  # prompts that were longer than the model's text

    def own(self, prompts: Sequence[str]) -> Context:
        """One row for each prompt, (B, L, D) or (B,): what ``log_prob`` and ``denoise`` take."""
        if self.rows is None:
            return None
        known = [*self.prompts, self.negative]
        return self.rows[mx.array([known.index(prompt) for prompt in prompts])]

    def for_sampling(self, prompts: Sequence[str], guidance: float) -> Context:
        """What ``invert`` and ``encode`` take: with guidance and text [captions; null captions]."""
        own = self.own(prompts)
        if own is None or not (guidance and self.is_text):
            return own
        return self.guided(own)

    def guided(self, own: mx.array) -> mx.array:
        """(2B, L, D): rows (B, L, D) of captions, then the null caption as often."""
        if self.rows is None:
            raise UsageError("guidance needs a prompt or a class; this model is unconditional.")
        return mx.concatenate([own, mx.repeat(self.rows[-1:], own.shape[0], axis=0)])


def unknown_words(components: Components, prompts: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each prompt with words that the model was not trained with; none for a model
    that does not list its words."""
    vocabulary = read_vocabulary(components.directory)
    if vocabulary is None:
        return ()
    notes = (vocabulary.note(prompt) for prompt in dict.fromkeys(prompts))
    return tuple(note for note in notes if note)


def cut_prompts(
    components: Components, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
) -> tuple[str, ...]:
    """A sentence for each prompt that is longer than the model's text. Loads the text encoder."""
    encoder, text = components.text_encoder, components.config.text
    if encoder is None or text is None:
        return ()
    more = {"fps": fps} if fps else {}
    cuts = encoder.cuts(tuple(dict.fromkeys(prompts)), aspect_ratio, **more)
    return tuple(cut.warning(text.length) for cut in cuts)


def prompt_rows(
    components: Components,
    prompts: Sequence[str],
    aspect_ratio: str = "1:1",
    negative: str = "",
    fps: int = 0,
    prefix: str = "",
) -> PromptRows:
    """Encode every different prompt once. ``fps``: of clips, 0 for pictures; ``prefix``: a word
    before every caption but the last row's. Errors: UsageError for a prompt to an unconditional
    model, TextError for an unknown class."""
    different = tuple(dict.fromkeys(prompts))
    flow = components.flow_config
    if flow.text_channels:
        encoder = components.text_encoder
        if encoder is None:
            raise UsageError("This model needs text features, but its bundle names no encoder.")
        captions = [f"{prefix}{prompt}" for prompt in different]
        more = {"fps": fps} if fps else {}
        encoded = encoder.encode([*captions, negative], aspect_ratio=aspect_ratio, **more)
        mx.eval(encoded.features)
        return PromptRows(different, encoded.features, True, negative, encoded.cuts)
    if flow.num_classes:
        labels = [components.label(prompt) for prompt in (*different, "")]
        return PromptRows(different, mx.array(labels, dtype=mx.int32), False)
    if any(different):
        raise UsageError("This model is unconditional: it takes no prompt. Leave it out.")
    return PromptRows(different, None, False)
