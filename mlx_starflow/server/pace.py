"""How long things take, learned while drawing: what clients are told of the time left."""

from __future__ import annotations

import math

LEARNING = 0.3  # weight of the newest measurement
EARLY = 0.05  # share of the work before which its speed says nothing


class Pace:
    """Seconds of a batch, as a running mean for each size and an estimate for the others."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def learn(self, pictures: int, seconds: float) -> None:
        """A batch of so many pictures took so long."""
        old = self._seconds.get(pictures)
        new = seconds if old is None else old + LEARNING * (seconds - old)
        self._seconds[pictures] = new

    def batch(self, pictures: int) -> float | None:
        """Seconds of a batch; None before anything was drawn."""
        if pictures in self._seconds or not self._seconds:
            return self._seconds.get(pictures)
        nearest = min(self._seconds, key=lambda n: abs(math.log(n / pictures)))
        return self._seconds[nearest] * (pictures / nearest) ** 0.7

    def several(self, pictures: int, together: int) -> float | None:
        """Seconds of so many pictures, drawn at most ``together`` at a time."""
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
    """Seconds that remain of work of which a share is done; None where nothing tells."""
    if share >= EARLY:
        return elapsed * (1 - share) / share
    return None if expected is None else max(expected - elapsed, 0.0)
