"""Converting takes memory for a piece of a tensor, whatever the size of the checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import full_size
import pytest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("options", [["--dtype", "bfloat16"], ["--quantize", "4"]])
def test_peak_memory_does_not_grow_with_the_checkpoint(tmp_path, options):
    peaks = []
    for layers in ((1, 1), (1, 12)):  # 0.1 and 0.65 GB
        path = tmp_path / f"model{len(layers)}{layers[1]}.pth"
        full_size.make(path, 1024, layers)
        command = [sys.executable, "-m", "convert.from_torch", str(path), "--output"]
        found = full_size.watch([*command, str(path.with_suffix("")), *options])
        peaks.append(found["RssAnon"] + found["RssFile"])
        assert peaks[-1] < 0.5, found  # GB
    assert peaks[1] < peaks[0] + 0.1, peaks
