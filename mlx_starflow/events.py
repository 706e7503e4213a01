"""The events of ``Pipeline.stream``, under the name that applications import."""

from .generation.events import (
    BlockDone,
    BlockProgress,
    Decoded,
    Denoised,
    Entering,
    Event,
    Finished,
    FramesDecoded,
    Loading,
    Phase,
    Preview,
    Started,
    TextEncoded,
)

__all__ = [
    "BlockDone",
    "BlockProgress",
    "Decoded",
    "Denoised",
    "Entering",
    "Event",
    "Finished",
    "FramesDecoded",
    "Loading",
    "Phase",
    "Preview",
    "Started",
    "TextEncoded",
]
