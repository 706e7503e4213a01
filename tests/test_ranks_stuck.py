"""A rank that is alive but makes no progress ends all, and is named."""

from __future__ import annotations

import os
import signal
import threading
import time

import mlx.core as mx
import pytest
from ranked import COMMAND, Ranks
from test_ranks import kill_when, prompts

from mlx_starflow.ranks.launching import NOISE
from mlx_starflow.ranks.watching import LEAST, Looks


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_hangs_ends_all(colours, tmp_path, stopped):
    folder = tmp_path / "many"
    line = ["generate", "--prompt-file", prompts(tmp_path, 60), "--seed", "5", "-m", colours]
    ranks = Ranks(2, *COMMAND, *line, "-o", folder / "a.png")
    kill_when(ranks, folder, 2, stopped, signal.SIGSTOP)
    began = time.monotonic()
    other = ranks.processes[1 - stopped]
    assert other.wait(30) == 1
    assert time.monotonic() - began < 30
    err = other.stderr.read()
    assert f"Rank {stopped} (" in err and "has not answered for 15 s" in err
    os.kill(ranks.processes[stopped].pid, signal.SIGCONT)
    assert ranks.processes[stopped].wait(30) == 1
    ranks.wait()


STUCK = """
import os, sys, time
from mlx_starflow.cli import drawing
rank, how, begun = sys.argv[1:4]
del sys.argv[1:4]

def stuck(*_):
    open(begun, "w").close()
    if how == "sleeps":
        time.sleep(100)
    number = 0
    while True:
        number = max(number, 1) + 1

if os.environ["MLX_RANK"] == rank:
    drawing._save = stuck
sys.argv[0] = "mlx-starflow"
from mlx_starflow.cli.app import main
main()
"""
SAYS = {"sleeps": "hangs: it has done nothing for 20 s",
        "circles": "runs in circles: it has made no progress for 18 s"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("how", SAYS)
@pytest.mark.parametrize(
    ("split", "rank"), [("pictures", 1), ("pictures", 0), ("tensor", 1), ("tensor", 0)]
)
def test_a_rank_that_makes_no_progress_ends_all(many_heads, tmp_path, how, split, rank):
    """Also where the other rank waits for it in an all-sum."""
    line = ["generate", "--prompt-file", prompts(tmp_path, 6), "--seed", "5", "-m", many_heads]
    line += ["-o", tmp_path / "a.png", "--split", split]
    begun = tmp_path / "begun"
    ranks = Ranks(2, "-c", STUCK, rank, how, begun, *line)
    until = time.monotonic() + 120
    while not begun.exists() and time.monotonic() < until:
        time.sleep(0.1)
    began = time.monotonic()
    ends = ranks.wait(60)
    assert [e.status for e in ends] == [1, 1]
    assert begun.exists() and time.monotonic() - began < 30
    assert f"Rank {rank} (" in ends[0].err and SAYS[how] in ends[0].err
    told = [line for e in ends for line in e.err.splitlines() if not NOISE.match(line)]
    assert len(told) == 1 and told[0] in ends[0].err


def test_python_code_that_runs_is_told_from_a_computation_and_from_waiting():
    """A loop in Python, MLX at work, and a wait for a lock."""
    stop = threading.Event()

    def circles():
        while not stop.is_set():
            pass

    def computes():
        while not stop.is_set():
            x = mx.random.normal((700, 700), stream=mx.cpu)
            for _ in range(20):
                x = 1e-2 * (x @ x)
            mx.eval(x)

    for work, expected in ((circles, True), (computes, False), (stop.wait, False)):
        stop.clear()
        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(10 if expected else 1):  # a busy machine may give the thread no time
            looks = Looks()
            for _ in range(2 * LEAST):
                looks.look()
                time.sleep(0.05)
            if found := looks.found_circles():
                break
        stop.set()
        thread.join()
        assert found is expected, work


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 2])
def test_a_stopped_rank_of_three_ends_all_with_one_sentence(many_heads, tmp_path, stopped):
    """The others wait for it in an all-sum."""
    line = ["generate", "--prompt-file", prompts(tmp_path, 60), "--seed", "5", "-m", many_heads]
    line += ["-o", tmp_path / "a.png", "--split", "tensor"]
    ranks = Ranks(3, *COMMAND, *line)
    kill_when(ranks, tmp_path, 2, stopped, signal.SIGSTOP)
    began = time.monotonic()
    others = [process for rank, process in enumerate(ranks.processes) if rank != stopped]
    assert [other.wait(30) for other in others] == [1, 1]
    assert time.monotonic() - began < 30
    err = [other.stderr.read() for other in others]
    # MLX's ring writes lines of its own, which the launcher leaves out
    told = [line for text in err for line in text.splitlines() if not NOISE.match(line)]
    assert len(told) == 1 and told[0] in err[0]
    assert f"Rank {stopped} (" in told[0] and "has not answered for 15 s" in told[0]
    os.kill(ranks.processes[stopped].pid, signal.SIGCONT)
    ranks.wait()
