"""Training in a process of its own that is ended from outside, at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from teaching import pictures

import mlx_starflow as sf
from mlx_starflow.adapters.files import WEIGHTS

SETTINGS = ("--iters", "400", "--batch-size", "2", "--steps-per-eval", "2", "--save-every", "3",
            "--previews", "1", "--patience", "0", "--lora-rank", "4", "--json")  # fmt: skip


def begin(bundle, data, place, *more):
    command = [sys.executable, "-m", "mlx_starflow", "train", "--data", data, "-m", bundle]
    return subprocess.Popen(
        [*map(str, command), "--adapter-path", str(place), *SETTINGS, *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(path, process, seconds=60.0):
    until = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert path.exists(), process.communicate()[1]


def test_ctrl_c_saves_and_says_how_to_go_on(colours, tmp_path):
    data, place = pictures(tmp_path / "data"), tmp_path / "a"
    process = begin(colours, data, place)
    wait_for(place / "0000003_adapters.safetensors", process)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "command with --resume" in told, told
    about = json.loads(out.splitlines()[-1])
    assert about["stopped"] == "interrupted" and about["iterations"] >= 3
    with sf.load(colours, adapters=[place]) as pipe:
        _ = pipe.flow
    again = begin(colours, data, place, "--resume")
    wait_for(place / f"{about['iterations'] // 3 * 3 + 3:07d}_adapters.safetensors", again)
    again.send_signal(signal.SIGINT)
    _, told = again.communicate(timeout=60)
    assert f"Resuming after step {about['iterations']}" in told


def killed_at_random(bundle, tmp_path, times: int) -> None:
    """Kill one training again and again; what is there is always loadable and goes on."""
    data, place, rng = pictures(tmp_path / "data"), tmp_path / "a", random.Random(15)
    process = begin(bundle, data, place)
    wait_for(place / WEIGHTS, process)
    for _ in range(times):
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.communicate()
        with sf.load(bundle, adapters=[place]) as pipe:
            _ = pipe.flow
        before = (place / "loss.csv").stat().st_mtime_ns if (place / "loss.csv").exists() else 0
        process = begin(bundle, data, place, "--resume")
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            now = (place / "loss.csv").stat().st_mtime_ns if (place / "loss.csv").exists() else 0
            if now != before:
                break
            time.sleep(0.01)
        assert process.poll() is None or process.returncode == 0, process.communicate()[1]
    process.kill()
    process.communicate()
    assert not [p for p in place.iterdir() if p.suffix == ".safetensors" and not p.stat().st_size]


def test_killed_at_two_moments(colours, tmp_path):
    killed_at_random(colours, tmp_path, 2)


@pytest.mark.slow
def test_killed_at_twenty_moments(colours, tmp_path):
    killed_at_random(colours, tmp_path, 20)
