"""A short run of every fuzzer; the long one is a command, see hostile/fuzzers.py."""

from __future__ import annotations

import pytest

from .fuzzers import FUZZERS, fuzz

COUNTS = {"settings": 150, "bundles": 80, "companions": 40, "tokenizers": 60,
          "noise_and_yaml": 200, "pictures": 150, "references": 60, "compressed": 30}  # fmt: skip


@pytest.mark.parametrize("name", FUZZERS)
def test_a_few_cases(name, tmp_path, monkeypatch):
    if name == "compressed":
        pytest.importorskip("constriction")
    monkeypatch.setenv("MLX_STARFLOW_CACHE", str(tmp_path / "cache"))
    outcomes = fuzz(name, COUNTS[name], 1, tmp_path)["outcomes"]
    passed = sum(n for kind, n in outcomes.items() if kind.islower())
    assert sum(outcomes.values()) == COUNTS[name]
    # A run in which everything, or nothing, is refused would show little.
    assert 0 < passed < COUNTS[name], outcomes


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZERS)
def test_many_cases(name, tmp_path, monkeypatch):
    if name == "compressed":
        pytest.importorskip("constriction")
    monkeypatch.setenv("MLX_STARFLOW_CACHE", str(tmp_path / "cache"))
    fuzz(name, 20_000, 2, tmp_path)
