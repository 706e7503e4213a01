"""10,000 prompts on 64 ranks, simulated with times that are measured here."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from ranked import on_ranks

import mlx_starflow as sf
from mlx_starflow.ranks.costs import handing_out

PROMPTS = ("a fox in snow", "a red circle", "two boats", "a night sky", "a tree", "a blue house")
RANKS, COUNT = 64, 10_000


@pytest.mark.slow
def test_handing_out_to_64_ranks_is_efficient(tmp_path, record_property):
    seconds = []
    with sf.load() as pipe:
        pipe.generate(PROMPTS[0], seed=0)
        for number, prompt in enumerate(PROMPTS):
            began = time.perf_counter()
            pipe.generate(prompt, seed=number)
            seconds.append(time.perf_counter() - began)
    first, _ = on_ranks(2, Path(__file__).with_name("desk_program.py"), tmp_path)
    desk = float(first.out)
    chance = np.random.default_rng(3)
    work = list(chance.choice(seconds, COUNT))
    same = handing_out(work, [1.0] * RANKS, desk)
    slow = handing_out(work, [1.0] * (RANKS - 4) + [0.25] * 4, desk)
    record_property("seconds", [round(s, 2) for s in seconds])
    record_property("desk", desk)
    record_property("efficiency", (same, slow))
    print(seconds, desk, same, slow)
    assert same >= 0.95 and slow >= 0.95
