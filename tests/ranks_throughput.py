"""Pictures per second of two ranks over one, each pinned to a core of its own. Needs Linux and a
machine that does nothing else. From the repository's root:

    PYTHONPATH=.:tests python tests/ranks_throughput.py

Prints, for one rank and for two, the pictures per second between the second picture and the last,
and the seconds of processor time of each rank, which other work on the machine changes less.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from ranked import COMMAND, Ranks

PROMPTS = ["a fox in snow", "a red circle", "two boats", "a night sky"] * 8


def throughput(ranks: int, folder: Path) -> tuple[float, list[float]]:
    """Pictures per second, and the processor time of every rank."""
    file = folder / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    output = folder / f"on-{ranks}"
    places = [("127.0.0.1", ["taskset", "-c", str(core)]) for core in range(ranks)]
    line = ["generate", "--prompt-file", file, "--seed", "3", "-o", output / "a.png"]
    running = Ranks(ranks, *COMMAND, *line, places=places)
    marks: dict[int, float] = {}
    while len(marks) < 2:
        count = len(list(output.glob("*.png")))
        for mark in (2, len(PROMPTS)):
            if count >= mark:
                marks.setdefault(mark, time.monotonic())
        if running.processes[0].poll() not in (None, 0):
            raise SystemExit(running.processes[0].stderr.read())
        time.sleep(0.005)
    used = [os.wait4(process.pid, 0)[2] for process in running.processes]
    return (len(PROMPTS) - 2) / (marks[len(PROMPTS)] - marks[2]), [
        usage.ru_utime + usage.ru_stime for usage in used
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        one, alone = throughput(1, Path(name))
        two, both = throughput(2, Path(name))
    sys.stdout.write(
        f"one rank: {one:.2f} pictures/s, {alone[0]:.1f} s of processor time\n"
        f"two ranks: {two:.2f} pictures/s ({two / one:.2f} times), {both[0]:.1f} and {both[1]:.1f} "
        "s of processor time\n"
    )
