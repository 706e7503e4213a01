"""What ``Pipeline.stream`` yields, in this order; each event is complete when it is yielded.

    Started, [Loading], [TextEncoded], [Loading],
    then for every block: BlockProgress ..., BlockDone, [Preview],
    [Entering, Denoised], Entering, [FramesDecoded ...], Decoded, Finished

``phase`` names the work that an event belongs to; ``Started.phases`` lists all of them with their
share of the whole, so that a progress bar needs nothing else. ``to_dict`` is an event as JSON.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ..sampling import BlockReport

if TYPE_CHECKING:
    from .result import Result

LONGEST_TEXT = 1000  # characters of a text in an event's JSON form; longer ones are cut
LONGEST_LIST = 1000  # values of a list or an object there


@dataclass(frozen=True)
class Phase:
    """A part of the work and its estimated share of the arithmetic (all shares sum to 1)."""

    name: str  # "text" | "given" | "deep block" | "shallow N" | "denoise" | "decode"
    share: float


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    phase: str

    @property
    def name(self) -> str:
        """What happened, for programs: "block_progress" for ``BlockProgress``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def to_dict(self) -> dict[str, Any]:
        """The event as a JSON object of bounded size: "event", "phase" and its fields.

        An array is given as its shape, a result as its settings and number of pictures; texts and
        lists are cut at LONGEST_TEXT and LONGEST_LIST; NaN and infinity become null.
        """
        own = {f.name: json_form(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"event": self.name, **own}


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
    frames_done: int = 0  # latent frames of a clip, in a block that solves one after another
    frames_total: int = 0  # 0: of a picture, or of all frames at once


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
    """A phase without steps of its own begins: "given", "denoise" or "decode"."""


@dataclass(frozen=True)
class Denoised(Event):
    """The noise that the flow was trained with is removed; absent with ``denoise=False``."""

    latents: mx.array  # (B, h, w, c) float32


@dataclass(frozen=True)
class FramesDecoded(Event):
    """Some frames of a clip are pixels; they come in order, a latent frame's at a time."""

    clip: int  # index in the batch
    first: int  # number of the first of these frames
    total: int  # frames of the clip
    frames: np.ndarray  # (1 or 4, H, W, 3) uint8


@dataclass(frozen=True)
class Decoded(Event):
    """The latents are pixels."""


@dataclass(frozen=True)
class Finished(Event):
    """The last event."""

    result: Result


def json_form(value: Any) -> Any:
    """A value as JSON of bounded size, see ``Event.to_dict``."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 3] + "..."
    if isinstance(value, mx.array | np.ndarray):
        return {"shape": list(value.shape)}
    if isinstance(value, Mapping):
        rows = list(value.items())[:LONGEST_LIST]
        return {json_form(str(k)): json_form(v) for k, v in rows}
    if isinstance(value, list | tuple):
        return [json_form(v) for v in value[:LONGEST_LIST]]
    if hasattr(value, "images"):
        return {"pictures": len(value.images), "settings": json_form(value.metadata)}
    if hasattr(value, "to_dict"):
        return json_form(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_form(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")
