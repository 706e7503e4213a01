"""The converter as a command: its messages, and what is left when it is stopped or killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch_files as tf
from hostile import small_model

from convert.from_torch import main
from mlx_starflow.bundle.load import load_component
from mlx_starflow.config import FlowConfig
from mlx_starflow.flow import Flow

ROOT = Path(__file__).parents[1]


def small(folder: Path) -> Path:
    return tf.save(folder / small_model.FILE_NAME, small_model.arrays())


def flow_of(bundle: Path) -> Flow:
    return load_component(bundle / "flow", lambda d: Flow(FlowConfig.from_dict(d)))


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "convert.from_torch", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_the_command(tmp_path, capsys):
    path = small(tmp_path)
    done = command(path, "--output", tmp_path / "out", "--json", "--verify")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model_type"] == "tarflow" and report["verified"]["weight_error"] == 0
    with pytest.raises(SystemExit) as ended:
        main([str(path), "--output", str(tmp_path / "out")])
    again = capsys.readouterr()
    assert ended.value.code == 2 and again.out == ""
    assert again.err.startswith("error: ") and "--overwrite" in again.err


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["missing.pth"], 2, "no such file"),
        (["{good}", "--dtype", "int3"], 2, "int3"),
        (["{good}", "--quantize", "5"], 2, "4, 8 or 'mixed'"),
        (["{good}", "--noise-std", "0.2"], 1, "0.2"),
        (["{good}", "--vae", "nothing-here"], 1, "nothing-here"),
        (["{good}", "--config", "missing.yaml"], 2, "missing.yaml"),
        (["{good}", "--bogus"], 2, "--bogus"),
        (["{text}"], 1, "neither"),
    ],
)
def test_wrong_use_gets_one_clear_line(tmp_path, capsys, arguments, status, reason):
    good, text = small(tmp_path), tmp_path / "notes.txt"
    text.write_text("dear diary")
    filled = [a.format(good=good, text=text) for a in arguments]
    with pytest.raises(SystemExit) as ended:
        main([*filled, "--output", str(tmp_path / "out")])
    errors = capsys.readouterr().err
    assert ended.value.code == status, errors
    assert reason in errors and "Traceback" not in errors
    assert not (tmp_path / "out").exists()
    if "--bogus" not in arguments:
        assert len(errors.strip().splitlines()) == 1


def test_an_output_that_cannot_be_written(tmp_path, capsys):
    path, wall = small(tmp_path), tmp_path / "file"
    wall.write_text("x")
    with pytest.raises(SystemExit) as ended:
        main([str(path), "--output", str(wall / "out")])
    assert ended.value.code == 1 and str(wall / "out") in capsys.readouterr().err
    assert wall.read_text() == "x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_leaves_nothing(tmp_path, number):
    arrays = small_model.arrays()
    name = "blocks.0.class_embed"
    arrays[name] = np.ones((200_000, 1, 64), np.float32)  # long enough to be caught at work
    path = tf.save(tmp_path / small_model.FILE_NAME, arrays)
    process = subprocess.Popen(
        [sys.executable, "-m", "convert.from_torch", path, "--output", tmp_path / "out"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any("partial" in n for n in os.listdir(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 143), errors
    assert "Traceback" not in errors
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_a_killed_command_never_leaves_a_target_that_loads(tmp_path):
    """SIGKILL at ten random moments of the writing; afterwards a run succeeds and clears up."""
    arrays = small_model.arrays()
    arrays["blocks.0.class_embed"] = np.ones((300_000, 1, 64), np.float32)
    path = tf.save(tmp_path / small_model.FILE_NAME, arrays)
    target, dice, killed = tmp_path / "out", np.random.default_rng(), 0

    def start() -> subprocess.Popen:
        before = set(os.listdir(tmp_path))
        command = [sys.executable, "-m", "convert.from_torch", path, "--output", target]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and not set(os.listdir(tmp_path)) - before:
            time.sleep(0.001)
        return process

    first = start()
    began = time.monotonic()
    assert first.wait() == 0
    writing = time.monotonic() - began
    for _ in range(60):
        left = {n for n in os.listdir(tmp_path) if "partial" in n}
        shutil.rmtree(target, ignore_errors=True)
        process = start()
        assert not left & set(os.listdir(tmp_path))  # this run cleared up after the last one
        time.sleep(dice.uniform(0, writing))
        process.kill()
        if process.wait() == -signal.SIGKILL and not target.exists():
            killed += 1
        else:  # it had put everything in its place already
            flow_of(target)
        if killed == 10:
            break
    assert killed == 10
    assert command(path, "--output", target, "--overwrite").returncode == 0
    flow_of(target)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out"])


def test_nothing_of_pytorch_is_needed(tmp_path):
    """The converter runs where torch, transformers and safetensors cannot be imported."""
    path = small(tmp_path)
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'safetensors', 'mlx_lm'):\n"
        "    sys.modules[name] = None\n"
        "from convert.from_torch import main\n"
        f"sys.argv = ['convert', {str(path)!r}, '--output', {str(tmp_path / 'out')!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert mx.isfinite(flow_of(tmp_path / "out").blocks[0].proj_in.weight).all()
