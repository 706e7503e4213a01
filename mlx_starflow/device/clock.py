"""Seconds and peak memory of phases that follow one another."""

from __future__ import annotations

import time

import mlx.core as mx


class Clock:
    """``lap`` ends a phase; a phase that comes again keeps its last time and highest peak."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """The next phase begins now; time since the last lap is discarded."""
        mx.reset_peak_memory()
        self._last = time.perf_counter()

    def lap(self, phase: str) -> float:
        """The seconds since the last lap or start, entered under ``phase``."""
        self.seconds[phase] = time.perf_counter() - self._last
        self.peaks[phase] = max(self.peaks.get(phase, 0), mx.get_peak_memory())
        self.start()
        return self.seconds[phase]
