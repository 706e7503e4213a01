"""The command ``serve``: user mistakes, and stopping in the middle of a batch."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from command import run  # noqa: F401
from PIL import Image

from mlx_starflow.generation import capabilities

pytest.importorskip("uvicorn", reason="the extra [server] is not installed")


class Command:
    """``mlx-starflow serve`` in a process of its own."""

    def __init__(self, *arguments, env: dict | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlx_starflow", "serve", "--port", "0", *map(str, arguments)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.lines = [self.process.stderr.readline() for _ in range(2)]
        self.url = re.search(r"http://\S+", self.lines[0])[0]

    def stop(self, number: int) -> tuple[float, int]:
        """Seconds until it has ended, and its exit status."""
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(30)
        return time.monotonic() - began, status


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGTERM, 0, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
    ],
)
def test_a_signal_during_a_batch_ends_it_within_two_seconds(tmp_path, number, status):
    folder = tmp_path / "pictures"
    command = Command("--output", folder)
    httpx.post(f"{command.url}/v1/images/generations", json={"prompt": "a fox"}, timeout=120)
    told: list[str] = []

    def ask() -> None:
        with httpx.stream(
            "POST", f"{command.url}/api/generate", json={"prompt": "a fox in snow", "n": 10},
            timeout=120,
        ) as answer:  # fmt: skip
            told.extend(answer.iter_lines())

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    while not httpx.get(f"{command.url}/api/queue").json()["drawing"] >= 2:
        time.sleep(0.02)
    time.sleep(0.3)
    seconds, left = command.stop(number)
    for thread in asking:
        thread.join(10)
    assert left == status and seconds < 2.0, f"{seconds:.1f} s"
    assert any('"code": "stopping"' in line for line in told)
    for path in folder.iterdir():
        assert path.suffix == ".png"
        Image.open(path).load()
    assert "Traceback" not in command.process.stderr.read()


def test_a_key_in_the_environment_and_what_a_killed_server_left(colours, tmp_path):
    """The key is asked for; unfinished files are swept away; SIGTERM ends it without an error."""
    (tmp_path / ".20260101-000000-7-ab12cd34.part").write_bytes(b"half")
    (tmp_path / ".hidden").write_text("mine")
    command = Command(
        "--model", colours, "--output", tmp_path, "--host", "0.0.0.0", "--log-level", "error",
        env={"MLX_STARFLOW_API_KEY": "secret"},
    )  # fmt: skip
    assert httpx.get(f"{command.url}/health").json() == {"status": "ok"}
    assert [p.name for p in tmp_path.iterdir()] == [".hidden"]
    url = f"{command.url}/v1/models"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer secret"}).status_code == 200
    assert command.stop(signal.SIGTERM)[1] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "--api-key"),
        (["--host", "192.168.7.7", "--api-key", "x"], "cannot be used"),
        (["--port", "99999"], "65535"),
        (["--max-batch", "0"], "--max-batch"),
        (["--allowed-origins", "example.org"], "https://example.org"),
        (["--model", "nowhere"], "no directory of this name"),
        (["--api-key", "schlüssel"], "ASCII"),
        (["--log-level", "loud"], "warning"),
    ],
)
def test_mistakes_are_said_in_a_sentence(run, arguments, says):  # noqa: F811
    port = [] if "--port" in arguments else ["--port", "0"]
    outcome = run("serve", *port, *arguments)
    assert outcome.status in (1, 2) and says in outcome.err and "Traceback" not in outcome.err


def test_a_port_that_is_taken_is_named(run):  # noqa: F811
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = run("serve", "--port", taken.getsockname()[1])
    assert outcome.status == 2 and "choose another --port" in outcome.err


def test_a_folder_that_is_a_file_is_named(run, tmp_path):  # noqa: F811
    (tmp_path / "x").write_text("")
    outcome = run("serve", "--port", "0", "--output", "x")
    assert outcome.status == 2 and "expected a directory" in outcome.err


@pytest.mark.parametrize("command", ["serve", "mcp"])
def test_without_the_extra_a_sentence_says_what_to_install(run, monkeypatch, command):  # noqa: F811
    monkeypatch.setattr(capabilities, "find_spec", lambda name: None)
    outcome = run(command)
    assert outcome.status == 2 and "pip install 'mlx-starflow[" in outcome.err


def test_info_tells_which_extras_are_there(run, monkeypatch):  # noqa: F811
    monkeypatch.setattr(capabilities, "find_spec", lambda name: None)
    extras = json.loads(run("info", "--json").out)["extras"]
    assert {"server", "mcp"} <= set(extras) and not any(extras.values())
