"""Divide a clip into stretches of frames that a block with attention across frames solves together.

A model is trained on clips of W latent frames (the window). The first W frames of a longer clip are
solved as usual. Then, repeatedly, a new sequence begins with the last K solved frames, whose keys
are computed in one pass, and the next W - K frames are solved (arXiv 2511.20462). Positions count
from the start of each sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Stretch:
    """Latent frames that are solved together; indices are those of the clip."""

    first: int  # first frame of the sequence
    solved: int  # first frame to solve; the frames before it are known
    stop: int  # one past the last frame of the sequence

    @property
    def frames(self) -> int:
        """Number of frames of the sequence, including the known ones at its beginning."""
        return self.stop - self.first

    @property
    def known(self) -> int:
        """Number of known frames at the beginning of the sequence."""
        return self.solved - self.first


def stretches(frames: int, given: int, window: int | None, context: int) -> list[Stretch]:
    """The stretches of a clip of ``frames`` latent frames, of which the first ``given`` are known.

    ``window``: W, None: no limit. ``context``: K, number of solved frames with which a continuation
    begins. Errors: UsageError if the clip is longer than the window and K is not less than W.
    """
    if window is None or frames <= window:
        return [Stretch(0, given, frames)]
    if context >= window:
        raise UsageError(
            f"context_frames is {context}, but the window has {window} latent frames, so no new "
            "frame would fit after the context. Give fewer context frames than the window has."
        )
    found, solved = [], given
    while solved < frames:
        first = 0 if solved < window else solved - context
        stop = min(first + window, frames)
        found.append(Stretch(first, solved, stop))
        solved = stop
    return found
