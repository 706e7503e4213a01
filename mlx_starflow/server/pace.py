"""Estimates of the remaining time, from the times of earlier batches."""

from __future__ import annotations

import math

LEARNING = 0.3  # weight of the newest measurement
EARLY = 0.05  # fraction of the work after which its own speed is used


class Pace:
    """The time of a batch: a running mean for batch sizes that occurred, else an estimate."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def learn(self, pictures: int, seconds: float) -> None:
        """Add a measurement: the seconds of a batch of so many pictures."""
        old = self._seconds.get(pictures)
        new = seconds if old is None else old + LEARNING * (seconds - old)
        self._seconds[pictures] = new

    def batch(self, pictures: int) -> float | None:
        """Estimated seconds of a batch of so many pictures; None before the first measurement."""
        if pictures in self._seconds or not self._seconds:
            return self._seconds.get(pictures)
        nearest = min(self._seconds, key=lambda n: abs(math.log(n / pictures)))
        return self._seconds[nearest] * (pictures / nearest) ** 0.7

    def several(self, pictures: int, together: int) -> float | None:
        """Estimated seconds of so many pictures, in batches of at most ``together``; None before
        the first measurement."""
        if pictures <= 0:
            return 0.0
        whole, rest = divmod(pictures, together)
        seconds = 0.0
        for count, times in ((together, whole), (rest, 1)):
            if count and times:
                one = self.batch(count)
                if one is None:
                    return None
                seconds += times * one
        return seconds


def left(share: float, elapsed: float, expected: float | None) -> float | None:
    """The remaining seconds of work of which the fraction ``share`` is done after ``elapsed``
    seconds. ``expected``: estimated total, used at the beginning. None if unknown."""
    if share >= EARLY:
        return elapsed * (1 - share) / share
    return None if expected is None else max(expected - elapsed, 0.0)
