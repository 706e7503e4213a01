"""How a clip is solved by a block that looks across frames: in one go, or beyond the window.

A model was trained on clips of W latent frames. A longer clip is continued: its first W frames are
solved as usual, then again and again a new sequence begins with the last K solved frames, whose
keys are computed in one pass, and the next W - K frames follow (arXiv 2511.20462). Positions count
from the start of the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Stretch:
    """Frames that are solved together, in frames of the clip."""

    first: int  # frame that the sequence begins with
    solved: int  # frames before this one are known
    stop: int  # frames before this one are in the sequence

    @property
    def frames(self) -> int:
        """Length of the sequence, the known frames at its beginning included."""
        return self.stop - self.first

    @property
    def known(self) -> int:
        """Frames at the beginning of the sequence that are known."""
        return self.solved - self.first


def stretches(frames: int, given: int, window: int | None, context: int) -> list[Stretch]:
    """The stretches of a clip of so many frames, of which the first ``given`` are known.

    ``window``: W, None for no limit; ``context``: K, frames that a continuation sees of what came
    before. Errors: UsageError unless 0 < K < W where the clip is longer than the window.
    """
    if window is None or frames <= window:
        return [Stretch(0, given, frames)]
    if context >= window:
        raise UsageError(
            f"context_frames is {context} and the window {window} latent frames: nothing new would "
            "fit behind the context. Give fewer context frames than the window has."
        )
    found, solved = [], given
    while solved < frames:
        first = 0 if solved < window else solved - context
        stop = min(first + window, frames)
        found.append(Stretch(first, solved, stop))
        solved = stop
    return found
