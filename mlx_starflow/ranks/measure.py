"""How fast the ranks reach each other: times of the messages that divided models send."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

SMALL, LARGE = 8, 16 << 20  # bytes of the messages for latency and for bandwidth
SIZES = (SMALL, 12 << 10, 192 << 10, LARGE)
REPEATS = {SMALL: 200, LARGE: 5}


@dataclass(frozen=True)
class Link:
    """What was measured. An all-sum over N ranks in a ring takes 2 (N - 1) steps."""

    ranks: int
    seconds: dict[int, float]  # bytes of an all-sum -> its median time

    @property
    def latency(self) -> float:
        """Seconds of one step of a small message."""
        return self.seconds[SMALL] / (2 * (self.ranks - 1))

    @property
    def bandwidth(self) -> float:
        """Bytes per second between neighbours: every step of a large sum moves 1/N of it."""
        moved = 2 * (self.ranks - 1) / self.ranks * (LARGE - SMALL)
        return moved / max(1e-12, self.seconds[LARGE] - self.seconds[SMALL])

    def to_dict(self) -> dict[str, Any]:
        """As values for JSON."""
        return {
            "ranks": self.ranks,
            "latency_seconds": self.latency,
            "bytes_per_second": self.bandwidth,
            "all_sum_seconds": {str(size): s for size, s in self.seconds.items()},
        }


def measure_link(group: Any) -> Link:
    """Time all-sums of several sizes in a group of ``mx.distributed``. All ranks call it."""
    seconds = {}
    for size in SIZES:
        x = mx.ones((size // 4,))
        mx.eval(x, mx.distributed.all_sum(x, group=group))
        times = []
        for _ in range(REPEATS.get(size, 50)):
            began = time.perf_counter()
            mx.eval(mx.distributed.all_sum(x, group=group))
            times.append(time.perf_counter() - began)
        seconds[size] = statistics.median(times)
    return Link(group.size(), seconds)
