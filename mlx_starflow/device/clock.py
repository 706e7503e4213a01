"""Time and peak memory of consecutive phases of work."""

from __future__ import annotations

import time

import mlx.core as mx


class Clock:
    """``lap`` ends a phase. ``seconds`` holds the last time of each phase, ``peaks`` its highest
    MLX memory in bytes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """Begin the next phase now; time since the last lap is discarded."""
        mx.reset_peak_memory()
        self._last = time.perf_counter()

    def lap(self, phase: str) -> float:
        """End a phase: store and return the seconds since the last lap or start."""
        self.seconds[phase] = time.perf_counter() - self._last
        self.peaks[phase] = max(self.peaks.get(phase, 0), mx.get_peak_memory())
        self.start()
        return self.seconds[phase]
