"""What eight pictures in one batch cost, as a multiple of one picture, by phase of ``generate``.
Needs a machine that does nothing else. From the repository's root:

    PYTHONPATH=. python tests/batch_cost.py [--rounds 6] [--sampler sequential]

Prints milliseconds, the least of all rounds, which draw one picture and eight in turn: wall time,
and processor time of the whole process.
"""

from __future__ import annotations

import argparse
import sys
import time

import mlx_starflow as sf
from mlx_starflow.generation.events import Decoded, Denoised, Entering

PROMPT = "a fox in snow"
PHASES = ("text and sampling", "denoising", "decoding", "whole")


def drawn(pipe: sf.Pipeline, count: int, sampler: str) -> list[tuple[float, float]]:
    """Wall and processor seconds of each phase of one batch, in the order of PHASES."""
    marks = [(time.perf_counter(), time.process_time())]
    seeds = list(range(count))
    for event in pipe.stream([PROMPT] * count, seeds, sampler=sampler):
        first = isinstance(event, Entering) and event.phase == "denoise"
        if first or isinstance(event, Denoised | Decoded):
            marks.append((time.perf_counter(), time.process_time()))
    spans = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(marks, marks[1:], strict=False)]
    return [*spans, (marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sampler", default="sequential")
    options = parser.parse_args()
    runs: dict[int, list[list[tuple[float, float]]]] = {1: [], 8: []}
    with sf.load() as pipe:
        for count in runs:
            drawn(pipe, count, options.sampler)
        for _ in range(options.rounds):
            for count, found in runs.items():
                found.append(drawn(pipe, count, options.sampler))
    write = sys.stdout.write
    write("| | one, wall | eight, wall | ratio | one, processor | eight, processor | ratio |\n")
    write("|---|---|---|---|---|---|---|\n")
    for i, phase in enumerate(PHASES):
        cells = [phase]
        for kind in (0, 1):
            one, eight = (1000 * min(run[i][kind] for run in runs[count]) for count in runs)
            cells += [f"{one:.0f}", f"{eight:.0f}", f"{eight / one:.2f}"]
        write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
