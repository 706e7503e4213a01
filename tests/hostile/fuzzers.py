"""Eight fuzzers over everything that comes from outside; what passes is used, what is refused is
refused by one of our own errors.

From the repository's root, 20,000 cases of each, or of those that are named:

    PYTHONPATH=.:tests python -m hostile.fuzzers 20000
    PYTHONPATH=.:tests python -m hostile.fuzzers 20000 pictures noise_and_yaml

For every fuzzer a line tells cases, outcomes, the longest case and the peak of the memory. A case
that ends otherwise is kept, and the run stops with its number.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import mlx.core as mx

from mlx_starflow.errors import StarflowError

from .fuzz_cases import (
    Fuzzer,
    bundles,
    companions,
    compressed,
    noise_and_yaml,
    pictures,
    references,
    settings,
    tokenizers,
)

SECONDS = 20  # for one case
PIECE = 2000  # cases in one process
BYTES = 1 << 30  # of memory, beside what preparing takes
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")


class Watch:
    """What is run or written outside of a folder while cases are read."""

    folder: str | None = None
    seen: list[str] = []

    @classmethod
    def hook(cls, event: str, arguments: tuple) -> None:
        if cls.folder is None:
            return
        if event in RUNS:
            cls.seen.append(f"{event} {str(arguments[0])[:80]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = os.fsdecode(arguments[0]), arguments[2]
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and path != os.devnull and not os.path.realpath(path).startswith(cls.folder):
                cls.seen.append(f"writes {path}")


sys.addaudithook(Watch.hook)


FUZZERS: dict[str, Fuzzer] = {
    f.__name__: f
    for f in (settings, bundles, companions, tokenizers, noise_and_yaml, pictures, references,
              compressed)
}  # fmt: skip


def fuzz(name: str, count: int, seed: int, folder: Path, first: int = 0) -> dict:
    """Run cases of one fuzzer, from number ``first`` on; the outcomes and the costs. Raises
    AssertionError for a case that ends otherwise than by passing or by one of our own errors."""
    case = FUZZERS[name](folder)
    outcomes: Counter[str] = Counter()
    longest = 0.0
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = signal.signal(signal.SIGALRM, _too_long)
    Watch.seen.clear()
    try:
        for number in range(first, first + count):
            if number % 100 == 0:
                # Every module that is built asks MLX's global state for random numbers that nobody
                # uses; left unevaluated, the chain of keys would grow with every case.
                mx.eval(mx.random.state)
            dice = random.Random(f"{name} {seed} {number}")
            # The first cases may import what they need.
            Watch.folder = os.path.realpath(folder) if number > first + 5 else None
            began = time.monotonic()
            signal.alarm(SECONDS)
            try:
                outcomes[case(dice)] += 1
            except StarflowError as error:
                text = str(error)
                assert 0 < len(text) < 5000, f"case {number}: {len(text)} characters"
                outcomes[type(error).__name__] += 1
            except BaseException as error:
                raise AssertionError(
                    f"case {number} of {name}, seed {seed}: {type(error).__name__}: {error}"
                ) from error
            finally:
                signal.alarm(0)
                Watch.folder = None
            longest = max(longest, time.monotonic() - began)
            assert not Watch.seen, f"case {number} of {name}, seed {seed}: {Watch.seen}"
    finally:
        signal.signal(signal.SIGALRM, before)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    if sys.platform == "darwin":
        grown //= 1024
    assert grown * 1024 < BYTES, f"{name}: the memory grew by {grown >> 10} MiB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"outcomes": outcomes, "longest": longest, "grown_mb": grown >> 10, "peak_mb": peak}


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def one_piece(name: str, count: int, seed: int, first: int) -> dict:
    """``fuzz`` in a temporary folder, for a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLX_STARFLOW_CACHE"] = str(Path(folder) / "cache")
        return fuzz(name, count, seed, Path(folder), first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.names or FUZZERS:
        began, outcomes, found = time.monotonic(), Counter(), []
        # In pieces: a thread that has used MLX leaves some kilobytes behind, case after case.
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
            for first in range(0, options.count, PIECE):
                count = min(PIECE, options.count - first)
                found.append(pool.submit(one_piece, name, count, options.seed, first).result())
                outcomes += found[-1]["outcomes"]
        worst = {key: max(f[key] for f in found) for key in ("longest", "grown_mb", "peak_mb")}
        told = ", ".join(f"{k} {v}" for k, v in outcomes.most_common())
        print(
            f"{name}: {sum(outcomes.values())} cases in {time.monotonic() - began:.0f} s, longest "
            f"{worst['longest']:.2f} s, memory +{worst['grown_mb']} MB (peak {worst['peak_mb']} "
            f"MB): {told}",
            flush=True,
        )


if __name__ == "__main__":
    main()
