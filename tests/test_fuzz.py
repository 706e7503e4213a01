"""Files damaged at random never crash, hang or run anything."""

from __future__ import annotations

import pytest
from hostile.fuzz import fuzz


def check(count: int, seed: int, folder) -> None:
    outcomes = fuzz(count, seed, folder)
    assert sum(outcomes.values()) == count
    # A run that never gets past the first check would show nothing.
    assert outcomes["tensors"] > count / 100, outcomes
    assert outcomes["CheckpointError"] > count / 3, outcomes


def test_a_few_damaged_files(tmp_path):
    check(1500, 1, tmp_path)


@pytest.mark.slow
def test_many_damaged_files(tmp_path):
    check(20_000, 2, tmp_path)
