"""Downloads that break, are killed, damaged or made twice: no byte twice, no wrong byte kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hub_client import CHECKPOINT, CLIENT, ROOT, variables
from hub_server import Hub

from mlx_starflow.bundle.check import problem_in_bundle


def starts(hub: Hub) -> list[int]:
    """The bytes at which files were asked for, in this order."""
    return [r.start for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]


def partial_files(folder: Path) -> list[Path]:
    return list((folder / "hf").rglob("*.resumable"))


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_broken_download_is_continued_where_it_broke(hub, ask):
    hub.repositories["some/model"] = {"big.bin": bytes(24 << 20)}
    hub.breaks["big.bin"] = [15 << 20]
    done = ask("fetch", "some/model", "big.bin")
    assert Path(done["path"]).stat().st_size == 24 << 20
    assert starts(hub) == [0, 15 << 20]


def test_a_killed_download_is_continued(hub, ask, tmp_path):
    hub.repositories["some/model"] = {"big.bin": bytes(24 << 20)}
    hub.stalls["big.bin"] = 15 << 20
    command = [sys.executable, "-c", CLIENT, "fetch", "some/model", "big.bin"]
    process = subprocess.Popen(command, env=variables(hub, tmp_path), cwd=ROOT)
    try:
        wait_for(lambda: any(p.stat().st_size == 15 << 20 for p in partial_files(tmp_path)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    hub.stalls.clear()
    hub.requests.clear()
    done = ask("fetch", "some/model", "big.bin")
    assert Path(done["path"]).stat().st_size == 24 << 20
    assert starts(hub) == [15 << 20]


def test_two_processes_fetch_a_file_once(hub, ask, tmp_path):
    content = os.urandom(9 << 20)
    hub.repositories["some/model"] = {"big.bin": content}
    hub.stalls["big.bin"] = 1 << 20
    command = [sys.executable, "-c", CLIENT, "fetch", "some/model", "big.bin"]
    options = dict(env=variables(hub, tmp_path), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    processes = [subprocess.Popen(command, **options) for _ in range(2)]
    try:
        wait_for(lambda: any(p.stat().st_size for p in partial_files(tmp_path)))
        hub.stalls.clear()  # the first connection breaks, and whoever holds the lock goes on
        told = [json.loads(p.communicate(timeout=60)[0]) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
    assert told[0]["path"] == told[1]["path"]
    assert Path(told[0]["path"]).read_bytes() == content
    assert sorted(starts(hub)) == [0, 1 << 20]


def test_a_damaged_file_is_noticed_and_fetched_anew(hub, ask, tmp_path):
    content = b"x" * (9 << 20)
    hub.repositories["some/model"] = {"big.bin": content}
    hub.stalls["big.bin"] = 1 << 20
    command = [sys.executable, "-c", CLIENT, "fetch", "some/model", "big.bin"]
    process = subprocess.Popen(command, env=variables(hub, tmp_path), cwd=ROOT)
    try:
        wait_for(lambda: any(p.stat().st_size for p in partial_files(tmp_path)))
    finally:
        process.kill()
        process.wait(10)
    hub.stalls.clear()
    (partial,) = partial_files(tmp_path)
    partial.write_bytes(b"y" * partial.stat().st_size)
    damaged = ask("fetch", "some/model", "big.bin")
    assert damaged["kind"] == "HubError" and "SHA-256" in damaged["error"]
    found = ask("fetch", "some/model", "big.bin")
    assert Path(found["path"]).read_bytes() == content


def test_a_hub_that_goes_down_in_between_costs_only_the_rest(hub, ask):
    # 501, since the client itself tries for long where 503 promises that waiting helps.
    hub.refusals["google/flan-t5-xl"] = (501, "")
    down = ask("resolve", "apple/starflow")
    assert down["kind"] == "HubError" and "HTTP 501" in down["error"]
    assert "google/flan-t5-xl" in down["error"]
    hub.refusals.clear()
    hub.refusals["model-00004-of-00005.safetensors"] = (501, "")
    partly = ask("resolve", "apple/starflow")
    assert partly["kind"] == "HubError" and "model-00004-of-00005" in partly["error"]
    hub.refusals.clear()
    hub.requests.clear()
    rest = ask("resolve", "apple/starflow")
    assert problem_in_bundle(Path(rest["path"])) is None
    assert CHECKPOINT not in rest["plan"] and "model-00001-of-00005.safetensors" not in rest["plan"]
    assert not any(CHECKPOINT in r.path for r in hub.requests)


def different_bytes(count: int) -> bytes:
    """Bytes whose order matters, unlike zeros'."""
    return np.random.default_rng(0).bytes(count)


def test_a_hub_that_begins_anew_is_not_appended_to(hub, ask):
    """A server without ranges answers a continued request from the first byte on."""
    data = different_bytes(12 << 20)
    hub.repositories["some/model"] = {"big.bin": data}
    hub.without_ranges.add("big.bin")
    hub.breaks["big.bin"] = [5 << 20]
    done = ask("fetch", "some/model", "big.bin")
    assert "error" not in done and Path(done["path"]).read_bytes() == data


def test_every_attempt_that_brings_something_is_followed_by_another(hub, ask):
    """More breaks than there are attempts without progress."""
    data = different_bytes(12 << 20)
    hub.repositories["some/model"] = {"big.bin": data}
    hub.breaks["big.bin"] = [1 << 20] * 8
    done = ask("fetch", "some/model", "big.bin")
    assert "error" not in done and Path(done["path"]).read_bytes() == data
    assert starts(hub)[:9] == [i << 20 for i in range(9)]


def test_attempts_that_bring_nothing_come_to_an_end(hub, ask):
    hub.repositories["some/model"] = {"big.bin": bytes(12 << 20)}
    hub.breaks["big.bin"] = [0] * 50
    done = ask("fetch", "some/model", "big.bin")
    assert done["kind"] == "HubError" and len(starts(hub)) <= 5


def test_the_space_that_is_asked_for_leaves_out_what_is_here(monkeypatch):
    """Of 100 bytes 30 are here; the converted copy takes 50 more."""
    from mlx_starflow.hub import resolve

    asked = []
    files = [resolve.RemoteFile("some/model", name, 50) for name in ("a", "b")]
    monkeypatch.setattr(resolve, "missing_files", lambda files: files)
    monkeypatch.setattr(resolve, "partial_bytes", lambda repository: 30)
    monkeypatch.setattr(resolve, "check_space", lambda place, needed, what: asked.append(needed))
    monkeypatch.setattr(resolve, "fetch", lambda file, tell: None)
    resolve._download("some/model", files, "", 50, None)
    assert asked == [120]


def test_an_interrupted_removal_leaves_no_model(tmp_path, monkeypatch, colours):
    from mlx_starflow.hub import cache

    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    shutil.copytree(colours, cache.cached_path("some/model", "float32"))
    [model] = cache.cached_models()

    def interrupted(path) -> None:
        next(Path(path).rglob("*.safetensors")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.remove_cached(model)
    assert not model.path.exists() and cache.cached_models() == []
