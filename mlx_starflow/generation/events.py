"""The events of ``Pipeline.stream``, in this order (those in brackets are optional):

    Started, [Loading], [TextEncoded], [Loading],
    then for every block: BlockProgress ..., BlockDone, [Preview],
    [Entering, Denoised], Entering, [FramesDecoded ...], Decoded, Finished

``phase`` is the phase of the work that an event belongs to. ``Started.phases`` lists all phases
with their shares of the work, for a progress bar. ``to_dict`` gives an event as JSON.
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

LONGEST_TEXT = 1000  # characters of a text in the JSON form of an event; longer ones are cut
LONGEST_LIST = 1000  # values of a list or an object in it


@dataclass(frozen=True)
class Phase:
    """A part of the work and its estimated share of it; the shares sum to 1."""

    name: str  # "text" | "given" | "deep block" | "shallow N" | "denoise" | "decode"
    share: float


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    phase: str

    @property
    def name(self) -> str:
        """The name of the event in its JSON form: "block_progress" for ``BlockProgress``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def to_dict(self) -> dict[str, Any]:
        """The event as a JSON object of bounded size: "event", "phase" and its fields.

        An array is replaced by its shape, a result by its settings and number of pictures. Texts
        and lists are cut at LONGEST_TEXT and LONGEST_LIST. NaN and infinity become null.
        """
        own = {f.name: json_form(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"event": self.name, **own}


@dataclass(frozen=True)
class Started(Event):
    """The work begins."""

    phases: tuple[Phase, ...]
    pictures: int  # number of pictures in the batch
    warnings: tuple[str, ...] = ()  # about memory


@dataclass(frozen=True)
class Loading(Event):
    """A component is not in memory and will be read from disk."""

    component: str  # "text_encoder" | "flow" | "vae"


@dataclass(frozen=True)
class TextEncoded(Event):
    """The prompts are encoded; ``warnings``: about those that were cut, or that have
    characters which the tokenizer does not know."""

    warnings: tuple[str, ...]


@dataclass(frozen=True)
class BlockProgress(Event):
    """Progress of the block that is being inverted; at most about 30 events per second."""

    block: int  # index in the flow; the deep block has the highest index and is inverted first
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
    """The latents after a block; only with ``previews=True``.

    ``Pipeline.preview(latents)`` turns them into rough pictures quickly, ``Pipeline.decode`` into
    exact ones.
    """

    block: int
    latents: mx.array  # (B, h, w, c) float32; mostly noise until the last block


@dataclass(frozen=True)
class Entering(Event):
    """The phase "given", "denoise" or "decode" begins."""


@dataclass(frozen=True)
class Denoised(Event):
    """The sample is denoised; absent with ``denoise=False``."""

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
    """The latents are decoded to pixels."""


@dataclass(frozen=True)
class Finished(Event):
    """The last event; holds the result."""

    result: Result


def json_form(value: Any) -> Any:
    """A value in JSON form, of bounded size; see ``Event.to_dict``."""
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
