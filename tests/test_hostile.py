"""Malicious files: every one is refused by a named reason, runs nothing, writes nothing, and
takes little memory."""

from __future__ import annotations

import re
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch_files as tf
from hostile import small_model
from hostile.archives import ARCHIVES, DATA, OTHERS, WEIGHTS
from hostile.pickles import PICKLES, with_canary

from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions
from mlx_starflow.errors import StarflowError

MEMORY = 200 << 20  # bytes; half a million instructions are the most that a pickle may cost
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "exec",
             "pickle.find_class", "compile", "socket.connect")  # fmt: skip
CASES = {**PICKLES, **ARCHIVES, **OTHERS, **WEIGHTS}


class _Watch:
    """Python's own audit events while it is on; hooks cannot be removed, so there is one."""

    on = False
    seen: list[str] = []

    @classmethod
    def hook(cls, event: str, arguments: tuple) -> None:
        if cls.on and event in FORBIDDEN:
            cls.seen.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_Watch.hook)


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> None:
    """What reading needs is imported before anything is watched."""
    folder = tmp_path_factory.mktemp("honest")
    path = tf.save(folder / small_model.FILE_NAME, small_model.arrays())
    convert_checkpoint(ConvertOptions(path, folder / "out", verify=True))


@pytest.fixture
def watched(imported) -> Iterator[list[str]]:
    """The forbidden audit events of the test."""
    _Watch.seen.clear()
    _Watch.on = True
    yield _Watch.seen
    _Watch.on = False


def make(name: str, folder: Path, canary: Path) -> tuple[Path, str]:
    content, reason = CASES[name]
    path = folder / "checkpoint.pth"
    if isinstance(content, bytes):
        tf.archive(path, with_canary(content, str(canary)), DATA)
        return path, reason
    return content(path), reason


def test_there_are_enough_of_them():
    assert len(CASES) >= 30
    assert len(PICKLES) + len(ARCHIVES) + len(OTHERS) + len(WEIGHTS) == len(CASES)


def test_the_disguise_is_good(tmp_path):
    """The valid model of which some files are made can be converted."""
    path = tf.save(tmp_path / small_model.FILE_NAME, small_model.arrays())
    convert_checkpoint(ConvertOptions(path, tmp_path / "out", verify=True))


def test_the_watch_sees(watched):
    exec("1 + 1")
    assert any(event.startswith("exec") for event in watched)


def refuse(name: str, tmp_path: Path) -> str:
    source, target, canary = tmp_path / "source", tmp_path / "target", tmp_path / "canary"
    source.mkdir()
    target.mkdir()
    path, reason = make(name, source, canary)
    before = sorted(source.rglob("*"))
    _Watch.seen.clear()
    tracemalloc.start()
    try:
        with pytest.raises(StarflowError) as caught:
            convert_checkpoint(ConvertOptions(path, target / "bundle"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert re.search(reason, message, re.DOTALL), message
    assert len(message) < 2000
    assert peak < MEMORY, f"{peak >> 20} MB"
    assert not canary.exists()
    assert list(target.iterdir()) == []
    assert sorted(source.rglob("*")) == before
    return message


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name, tmp_path, watched):
    message = refuse(name, tmp_path)
    assert "source" in message or "checkpoint" in message  # it names the file
    assert not watched, watched


YAML_FILES = {
    "a YAML that calls": ("!!python/object/apply:os.system ['touch {canary}']", "not a YAML"),
    "a YAML that makes objects": ("!!python/name:os.system", "not a YAML"),
    "a YAML of laughs": (
        "a0: &a0 [x, x]\n"
        + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
        + "arguments: [{channels: *a59}]",
        "aliases",
    ),
    "a YAML that is binary": ("\0\1\2", "not a YAML"),
    "a YAML of another kind": ("model: {channels: 3}", "as in the published files"),
    "a YAML nested too deep": ("[" * 2000, "not a YAML"),
}


@pytest.mark.parametrize("name", YAML_FILES)
def test_a_yaml_is_refused(name, tmp_path, watched):
    text, reason = YAML_FILES[name]
    canary = tmp_path / "canary"
    path = tf.save(tmp_path / "checkpoint.pth", small_model.arrays())
    config = tmp_path / "model.yaml"
    config.write_text(text.replace("{canary}", str(canary)))
    with pytest.raises(StarflowError, match=reason) as caught:
        convert_checkpoint(ConvertOptions(path, tmp_path / "bundle", config=config))
    assert str(config) in str(caught.value)
    assert not canary.exists()
    assert not (tmp_path / "bundle").exists()
    assert not watched, watched
