"""Whether the work of this process goes on, stands still, or runs in circles.

The work says so by its steps. Between two steps it may compute for long, and Python then waits for
MLX. A process without a step that does not use the processor at all stands still. It runs in
circles if the thread of the work uses most of the time that the process has on the processor, and
is seen to execute Python code again and again: in a computation MLX's own threads use it, or the
GPU works and the processor is mostly idle.
"""

from __future__ import annotations

import dis
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..device.activations import on_gpu

HUNG = 20.0  # seconds without a step and without use of the processor: the work stands still
IDLE_SHARE = 0.005  # of a processor, which signs of life alone need
CIRCLES = 18.0  # seconds without a step after which work that executes Python runs in circles
LOOKING = 10.0  # of these, the seconds in which the threads are looked at
LEAST = 3  # looks that must have found Python code running
SAMPLES, APART = 4, 0.01  # of one look; seconds between them
OF_PROCESS = 0.8  # share of the processor time of the process that the thread must have
OF_TIME = 0.01  # share of the time that it must have had a processor; machines may be overloaded
OF_TIME_GPU = 0.7  # the same where a GPU computes, for which the thread prepares work
# Instructions at which Python lets other threads run: the jump back in a loop, the begin of a call
_RUNS = {dis.opmap[name] for name in ("JUMP_BACKWARD", "RESUME") if name in dis.opmap}


class Watch:
    """The steps of the work. ``verdict`` is called by another thread, about once a second."""

    def __init__(self) -> None:
        self._depth = 0
        self.step()

    def step(self) -> None:
        """A sign that the work goes on."""
        self._step_at = self._used_at = time.monotonic()  # last step; last use of the processor
        self._cpu = time.process_time()  # at ``_used_at``
        self._looks: Looks | None = None

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
        if since > CIRCLES - LOOKING:
            looks = self._looks = self._looks or Looks()
            looks.look()
            if since >= CIRCLES and looks.found_circles() and self._looks is looks:
                return f"runs in circles: it has made no progress for {CIRCLES:.0f} s"
        if unused >= HUNG:
            if time.process_time() - self._cpu < IDLE_SHARE * unused:
                return f"hangs: it has done nothing for {HUNG:.0f} s"
            self._used_at, self._cpu = now, time.process_time()
        return None


class Looks:
    """What the other threads of this process do, from now on."""

    def __init__(self) -> None:
        self._found: dict[int, int] = {}  # by thread, the looks that saw it execute Python code
        self._began, self._cpu = time.monotonic(), time.process_time()
        self._used = _used_by_threads()

    def look(self) -> None:
        """Look at what every thread does."""
        for thread in python_runs():
            self._found[thread] = self._found.get(thread, 0) + 1

    def found_circles(self) -> bool:
        """Whether one of the threads executes Python code all the time."""
        spent, now = time.monotonic() - self._began, _used_by_threads()
        process = time.process_time() - self._cpu
        for thread, looks in self._found.items():
            if thread not in now or thread not in self._used:
                if not on_gpu():
                    continue  # this system tells the time of the process only
                own = process
            else:
                own = now[thread] - self._used[thread]
            share = OF_TIME_GPU if on_gpu() else OF_TIME
            if looks >= LEAST and own >= OF_PROCESS * process and own >= share * spent:
                return True
        return False


def python_runs() -> list[int]:
    """The other threads of this process that are seen to execute Python code.

    A thread that waits in a function of C (for MLX, a file, a lock) is seen at the same call again
    and again. One that executes Python code is seen elsewhere, or where it lets others run."""
    seen = [_places()]
    for _ in range(SAMPLES - 1):
        time.sleep(APART)
        seen.append(_places())
    found = []
    for thread in seen[0]:
        at = [places[thread] for places in seen if thread in places]
        for (frame, place, _), (later, there, runs) in itertools.pairwise(at):
            if runs or frame is not later or place != there:
                found.append(thread)
                break
    return found


def _places() -> dict[int, tuple[FrameType | None, int, bool]]:
    """Where every other thread is: its frame, its instruction, and whether it lets others run
    there; (None, 0, False) for a thread that waits for another."""
    found: dict[int, tuple[FrameType | None, int, bool]] = {}
    for thread, frame in sys._current_frames().items():
        if thread == threading.get_ident():
            continue
        at = max(0, frame.f_lasti)
        if frame.f_code.co_filename == threading.__file__:
            found[thread] = None, 0, False
        else:
            found[thread] = frame, at, frame.f_code.co_code[at] in _RUNS
    return found


def _used_by_threads() -> dict[int, float]:
    """The processor time in seconds of every thread; {} on systems that do not tell it."""
    found: dict[int, float] = {}
    for thread in threading.enumerate():
        try:
            text = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
        except OSError:  # it has ended, or the system is not Linux
            continue
        fields = text.rpartition(")")[2].split()  # its name, in brackets, may be anything
        if thread.ident is not None:
            found[thread.ident] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found
