"""Whether the work of this process goes on, stands still, or runs in circles.

The work says so by its steps. Between two steps a process may compute for long: then MLX has the
thread of the work, and either the processor or the GPU is busy. A process without a step that does
not use the processor at all stands still. One whose thread executes Python code all the while, and
never waits for MLX, runs in circles: Python prepares work for MLX in a small part of the time.
"""

from __future__ import annotations

import dis
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HUNG = 20.0  # seconds without a step and without use of the processor: the work stands still
IDLE_SHARE = 0.005  # of a processor, which signs of life alone need
CIRCLES = 18.0  # seconds without a step, with Python code running: the work runs in circles
LOOKS = 10  # of the last looks at what the threads do, one at each ``verdict``
MOST = 8  # of these that must have found Python code running
SAMPLES, APART = 6, 0.02  # of one look; seconds between them
# Instructions at which Python lets other threads run: the jump back in a loop, the begin of a call
_RUNS = {dis.opmap[name] for name in ("JUMP_BACKWARD", "RESUME") if name in dis.opmap}


class Watch:
    """The steps of the work. ``verdict`` is called by another thread, about once a second."""

    def __init__(self) -> None:
        self._depth = 0
        self._looks: deque[bool] = deque(maxlen=LOOKS)
        self.step()

    def step(self) -> None:
        """A sign that the work goes on."""
        self._step_at = self._used_at = time.monotonic()  # last step; last use of the processor
        self._cpu = time.process_time()  # at ``_used_at``
        self._looks.clear()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside the ``with`` block there is a ``verdict``."""
        self.step()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Inside the ``with`` block the work waits for others and there is no ``verdict``."""
        before, self._depth = self._depth, 0
        try:
            yield
        finally:
            self.step()
            self._depth = before

    def verdict(self) -> str | None:
        """What is wrong with the work, as the end of a sentence about this process, or None."""
        now = time.monotonic()
        since, unused = now - self._step_at, now - self._used_at
        if not self._depth:
            return None
        if since > CIRCLES - LOOKS - 1:
            self._looks.append(python_runs())
        if since >= CIRCLES and sum(self._looks) >= MOST:
            return f"runs in circles: it has made no progress for {CIRCLES:.0f} s"
        if unused >= HUNG:
            if time.process_time() - self._cpu < IDLE_SHARE * unused:
                return f"hangs: it has done nothing for {HUNG:.0f} s"
            self._used_at, self._cpu = now, time.process_time()
        return None


def python_runs() -> bool:
    """Whether another thread of this process executes Python code most of the time.

    A thread that waits in a function of C (for MLX, a file, a lock) is seen at the same call again
    and again. One that executes Python code is seen elsewhere, or where it lets others run."""
    seen = [_places()]
    for _ in range(SAMPLES - 1):
        time.sleep(APART)
        seen.append(_places())
    for thread in seen[0]:
        at = [places.get(thread) for places in seen]
        moved = [
            a is None or b is None or a[0] is not b[0] or a[1] != b[1] or b[2]
            for a, b in itertools.pairwise(at)
        ]
        if sum(moved) > len(moved) // 3:
            return True
    return False


def _places() -> dict[int, tuple[FrameType, int, bool]]:
    """Where every other thread is: its frame, its instruction, and whether it lets others run
    there."""
    found = {}
    for thread, frame in sys._current_frames().items():
        if thread != threading.get_ident():
            at = max(0, frame.f_lasti)
            found[thread] = (frame, at, frame.f_code.co_code[at] in _RUNS)
    return found
