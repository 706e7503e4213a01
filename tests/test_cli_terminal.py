"""The command as a process: what a terminal shows, Ctrl-C, pipes, and how fast it starts."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundles import colours_bundle

pexpect = pytest.importorskip("pexpect")
ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "cli.py")]
BAR = r"(deep block|shallow 2|shallow 1|denoise|decode) +\[([#-]{24})\] +(\d+)%"


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> Path:
    """A model with enough tokens for a bar to be seen moving."""
    return colours_bundle(tmp_path_factory.mktemp("bundles") / "slow", grid_size=16)


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TERM", "xterm")
    return dict(os.environ)


def generate(model: Path, *more: str) -> list[str]:
    flags = ["--sampler", "sequential", "--seed", "1"]
    return [*COMMAND[1:], "generate", "red", "-m", str(model), *flags, *more]


def test_a_terminal_shows_one_bar_that_moves(slow, environment, tmp_path):
    child = pexpect.spawn(
        sys.executable, generate(slow), cwd=str(tmp_path), env=environment,
        encoding="utf-8", timeout=60, dimensions=(24, 100),
    )  # fmt: skip
    shown = child.read()
    child.close()
    assert child.exitstatus == 0, shown
    bars = re.findall(BAR, shown)
    shares = [int(percent) for _, _, percent in bars]
    assert len(set(shares)) > 5 and shares == sorted(shares)
    assert {"deep block", "shallow 2", "shallow 1"} <= {phase for phase, _, _ in bars}
    assert re.search(r"\d+:\d\d left", shown) and re.search(r"\d+/256 tokens", shown)
    last = shown.rsplit("\x1b[K", 1)[-1]  # what is left on the screen once the bar is gone
    assert last.strip() == "image.png"


def test_ctrl_c_stops_within_a_second_and_says_what_is_finished(slow, environment, tmp_path):
    child = pexpect.spawn(
        sys.executable, generate(slow, "2", "3", "4", "5", "6", "7", "8", "9"),
        cwd=str(tmp_path), env=environment, encoding="utf-8", timeout=60,
    )  # fmt: skip
    while not (tmp_path / "image_seed_1.png").exists():
        child.expect(BAR)
    child.sendintr()
    pressed = time.monotonic()
    shown = child.read()
    child.close()
    assert time.monotonic() - pressed < 1.0
    assert child.exitstatus == 130
    assert re.search(r"Interrupted after \d of 9 pictures; finished: image_seed_1.png", shown)
    assert "Traceback" not in shown
    made = {p.name for p in tmp_path.iterdir()}
    assert "image_seed_9.png" not in made
    assert all(re.fullmatch(r"image_seed_\d\.png", name) for name in made)


def test_an_interrupt_before_any_picture(slow, environment, tmp_path):
    child = subprocess.Popen(
        [sys.executable, *generate(slow, "--verbose")], cwd=tmp_path, env=environment,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr.readline().startswith("deep block")
    child.send_signal(signal.SIGINT)
    _, message = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Traceback" not in message and "nothing is saved" in message
    assert not list(tmp_path.iterdir())


def test_ctrl_c_does_not_wait_for_a_long_step(slow, environment, tmp_path):
    program = (
        "import sys, time, mlx_starflow.cli.app as app, mlx_starflow.generation.draw as g\n"
        "g.denoise = lambda *_: (sys.stderr.write('busy\\n'), sys.stderr.flush(), time.sleep(20))\n"
        "app.main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, "generate", "red", "-m", str(slow), "--seed", "1"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr.readline() == "busy\n"
    child.send_signal(signal.SIGINT)
    pressed = time.monotonic()
    _, message = child.communicate(timeout=30)
    assert time.monotonic() - pressed < 1.0
    assert child.returncode == 130 and "nothing is saved" in message
    assert not list(tmp_path.iterdir())


def test_a_pipe_gets_no_control_characters(colours, environment, tmp_path):
    done = subprocess.run(
        [sys.executable, *generate(colours, "--verbose")], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == "image.png\n"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", done.stdout + done.stderr)


def test_a_reader_that_leaves_is_no_traceback(environment):
    done = subprocess.run(
        f"{sys.executable} {ROOT / 'cli.py'} models list | true",
        shell=True, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def cpu_seconds(arguments: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def is_quick(arguments: list[str], environment: dict[str, str], times: float) -> bool:
    """Whether one of three runs takes less CPU time than so many bare starts of Python, one of
    which is measured before each: other programs slow down some of them."""
    bare = [sys.executable, "-c", "pass"]
    return any(
        times * cpu_seconds(bare, environment) > cpu_seconds(arguments, environment)
        for _ in range(3)
    )


def test_importing_is_cheap_and_silent(environment):
    program = (
        "import sys, mlx_starflow; "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('mlx_lm', 'transformers', 'tokenizers', 'huggingface_hub', 'typer', 'convert', 'cli')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    # 2.3 starts; importing numpy alone is 6 more.
    assert is_quick([sys.executable, "-c", "import mlx_starflow"], environment, 6)


def test_help_is_quick(environment):
    # 9 starts, of which typer is 5; importing mlx_lm is 80.
    assert is_quick([*COMMAND, "--help"], environment, 25)


def test_version_and_completion(environment):
    done = subprocess.run(
        [*COMMAND, "--version"], env=environment, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"mlx-starflow \d+\.\d+\.\d+\S*\n", done.stdout)
    completed = subprocess.run(
        COMMAND,
        env={**environment, "_MLX_STARFLOW_COMPLETE": "complete_bash", "COMP_CWORD": "1",
             "COMP_WORDS": "mlx-starflow gen"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert completed.stdout.split() == ["generate"]
