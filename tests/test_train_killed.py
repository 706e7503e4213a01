"""Training in a process of its own that is ended from outside, at any moment."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from teaching import adapter, pictures

import mlx_starflow as sf
from mlx_starflow.adapters.files import CONFIG, WEIGHTS
from mlx_starflow.training.checkpoint import STATE

STEPS = 6  # most steps between two kills
SETTINGS = ("--iters", "400", "--batch-size", "2", "--steps-per-eval", "2", "--save-every", "3",
            "--previews", "1", "--patience", "0", "--lora-rank", "4", "--json")  # fmt: skip


def begin(bundle, data, place, *more, **how):
    command = [sys.executable, "-m", "mlx_starflow", "train", "--data", data, "-m", bundle]
    return subprocess.Popen(
        [*map(str, command), "--adapter-path", str(place), *SETTINGS, *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, **how,
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
    """Kill one training again and again, while it starts and while it works: every adapter that is
    there is loadable, and what goes on to the end is a training that was never killed."""
    data, place, rng = pictures(tmp_path / "data"), tmp_path / "a", random.Random(15)
    size = ("--iters", str((times + 2) * STEPS))
    unbroken = begin(bundle, data, tmp_path / "whole", *size)
    for number in range(times):
        process, before = begin(bundle, data, place, *resumed(place), *size), steps(place)
        if number % 2:
            wait_for_steps(process, place, before + rng.randint(1, STEPS))
        else:  # while it starts
            time.sleep(rng.uniform(0, 1))
        assert process.poll() is None, process.communicate()[1]
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        for file in place.glob(f"*{WEIGHTS}"):
            with sf.load(bundle, adapters=[file]) as pipe:
                _ = pipe.flow
    assert steps(place) > 0
    for process in (unbroken, begin(bundle, data, place, *resumed(place), *size)):
        _, told = process.communicate()
        assert process.returncode == 0, told
    names = {p.name for p in (tmp_path / "whole").iterdir() if p.suffix in (".safetensors", ".csv")}
    assert {WEIGHTS, STATE, f"{STEPS // 3 * 3:07d}_{WEIGHTS}"} <= names
    for name in names:
        assert (place / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def resumed(place) -> list[str]:
    """Arguments with which a training goes on; one that was killed before its first state is
    begun again."""
    if (place / STATE).exists():
        return ["--resume"]
    if (place / WEIGHTS).exists():
        shutil.rmtree(place)
    return []


def steps(place) -> int:
    """The step of the last evaluation that is in the table."""
    table = place / "loss.csv"
    return int(table.read_text().splitlines()[-1].split(",")[0]) if table.exists() else 0


def wait_for_steps(process, place, step: int, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while steps(place) < step and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)


def test_killed_at_two_moments(colours, tmp_path):
    killed_at_random(colours, tmp_path, 2)


@pytest.mark.slow
def test_killed_at_twenty_moments(colours, tmp_path):
    killed_at_random(colours, tmp_path, 20)


def test_a_disk_that_is_full_is_told(colours, tmp_path):
    """No file can be larger than the first adapter, so the state cannot be written."""
    data, place = pictures(tmp_path / "data"), tmp_path / "a"
    room = adapter(colours, tmp_path / "like", rank=4) / WEIGHTS
    most = room.stat().st_size + 1000

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    process = begin(colours, data, place, preexec_fn=small)
    _, told = process.communicate()
    assert process.returncode == 1
    assert told.splitlines()[-1].startswith(f"mlx-starflow: {place / STATE} cannot be written"), (
        told
    )
    assert "File too large" in told and "Traceback" not in told
    with sf.load(colours, adapters=[place]) as pipe:
        _ = pipe.flow
    assert {p.name for p in place.iterdir()} == {CONFIG, WEIGHTS, "loss.csv", "loss.png"}
