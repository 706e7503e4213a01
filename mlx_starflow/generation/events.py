"""What ``Pipeline.stream`` yields, in this order; each event is complete when it is yielded.

    Started, [Loading], [TextEncoded], [Loading],
    then for every block: BlockProgress ..., BlockDone, [Preview],
    [Entering, Denoised], Entering, Decoded, Finished

``phase`` names the work that an event belongs to; ``Started.phases`` lists all of them with their
share of the whole, so that a progress bar needs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx

from ..sampling import BlockReport

if TYPE_CHECKING:
    from .result import Result


@dataclass(frozen=True)
class Phase:
    """A part of the work and its estimated share of the arithmetic (all shares sum to 1)."""

    name: str  # "text" | "deep block" | "shallow N" | "denoise" | "decode"
    share: float


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    phase: str


@dataclass(frozen=True)
class Started(Event):
    """The request is understood and the work begins."""

    phases: tuple[Phase, ...]
    pictures: int  # pictures made together
    warnings: tuple[str, ...] = ()  # what memory is short of, and what is done about it


@dataclass(frozen=True)
class Loading(Event):
    """A component is about to be read from disk (it was not in memory)."""

    component: str  # "text_encoder" | "flow" | "vae"


@dataclass(frozen=True)
class TextEncoded(Event):
    """The prompts are encoded; ``warnings`` says what did not fit and was cut."""

    warnings: tuple[str, ...]


@dataclass(frozen=True)
class BlockProgress(Event):
    """Tokens of the block that is being inverted; at most about 30 of these a second."""

    block: int  # index in the flow: the deep block is the highest and comes first
    tokens_done: int
    tokens_total: int


@dataclass(frozen=True)
class BlockDone(Event):
    """A block is inverted."""

    block: int
    report: BlockReport


@dataclass(frozen=True)
class Preview(Event):
    """The picture so far, after a block; only with ``previews=True``.

    ``Pipeline.preview(latents)`` turns it into pictures cheaply, ``Pipeline.decode(latents)``
    exactly.
    """

    block: int
    latents: mx.array  # (B, h, w, c) float32; before the last block still mostly noise


@dataclass(frozen=True)
class Entering(Event):
    """A phase without steps of its own begins: "denoise" or "decode"."""


@dataclass(frozen=True)
class Denoised(Event):
    """The noise that the flow was trained with is removed; absent with ``denoise=False``."""

    latents: mx.array  # (B, h, w, c) float32


@dataclass(frozen=True)
class Decoded(Event):
    """The latents are pixels."""


@dataclass(frozen=True)
class Finished(Event):
    """The last event."""

    result: Result
