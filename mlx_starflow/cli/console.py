"""Output on standard error: a progress bar, and messages that do not break it."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from ..files.visible import raw, visible
from ..generation.events import BlockDone, BlockProgress, Event, Finished, FramesDecoded, Loading
from ..generation.progress import Share

BAR = 24  # characters


class Console:
    """A progress bar on a terminal, and messages. ``quiet`` turns off both; ``verbose`` adds
    details."""

    def __init__(
        self, quiet: bool = False, verbose: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream = stream or sys.stderr
        self.quiet, self.verbose = quiet, verbose
        self._bar = self._stream.isatty() and not quiet
        self._drawn = False
        self._drawn_at = 0.0

    def say(self, line: str) -> None:
        """Write a line, unless ``quiet``."""
        if not self.quiet:
            self._write(line)

    def detail(self, line: str) -> None:
        """Write a line if ``verbose``."""
        if self.verbose:
            self._write(line)

    def draw(self, phase: str, detail: str, share: float, seconds_left: float | None) -> None:
        """Draw the progress bar on a terminal. ``share``: the fraction done, from 0 to 1."""
        now = time.perf_counter()
        if not self._bar or (self._drawn and now - self._drawn_at < 0.03):
            return
        filled = round(BAR * min(share, 1.0))
        left = "" if seconds_left is None else f"  {_clock(seconds_left)} left"
        text = f"{phase:<12} [{'#' * filled}{'-' * (BAR - filled)}] {share:4.0%}{left}"
        if detail:
            text += f"  {detail}"
        text = visible(text)[: shutil.get_terminal_size().columns - 1]
        raw(self._stream).write("\r" + text + "\x1b[K")
        self._stream.flush()
        self._drawn, self._drawn_at = True, now

    def clear(self) -> None:
        """Remove the progress bar."""
        if self._drawn:
            raw(self._stream).write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def _write(self, line: str) -> None:
        self.clear()
        self._stream.write(line + "\n")
        self._stream.flush()


class Progress:
    """Draws one progress bar for the events of one or more batches."""

    def __init__(self, console: Console, batches: int) -> None:
        self._console, self._batches = console, batches
        self._finished = 0
        self._share = Share()
        self._began = time.perf_counter()
        self._loading = 0.0  # seconds spent on reading components, not counted in the estimate
        self._load_began: float | None = None

    def count(self) -> None:
        """One more batch is finished."""
        self._finished += 1

    def follow(self, event: Event, counting: bool = True) -> None:
        """Update the bar for an event. ``counting``: the event ``Finished`` counts its batch."""
        now = time.perf_counter()
        if self._load_began is not None:
            self._loading += now - self._load_began
            self._load_began = None
        detail = ""
        if isinstance(event, Loading):
            self._load_began = now
            detail = f"loading {event.component.replace('_', ' ')}"
        elif isinstance(event, BlockProgress):
            detail = f"{event.tokens_done}/{event.tokens_total} tokens"
            if event.frames_total:
                detail += f", {event.frames_done}/{event.frames_total} latent frames"
        elif isinstance(event, FramesDecoded):
            detail = f"{event.first + len(event.frames)}/{event.total} frames"
        elif isinstance(event, BlockDone):
            report = event.report
            self._console.detail(
                f"{event.phase}: {report.sampler}, {report.weight_reads} passes, "
                f"{report.evaluations_per_token:.2f} evaluations per token, "
                f"{report.seconds:.2f} s, residual {report.residual:.1e}"
            )
        share = (self._finished + self._share.after(event)) / self._batches
        if counting and isinstance(event, Finished):
            self.count()
        self._console.draw(event.phase, detail, share, self._left(share, now))

    def _left(self, share: float, now: float) -> float | None:
        if share < 0.02:
            return None
        return (now - self._began - self._loading) * (1 - share) / share


def _clock(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d}"
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
