"""A conversion writes its target completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch_files as tf
from converting import flow_of, small
from hostile import small_model

from convert.bundle import convert_checkpoint, convert_steps
from convert.options import ConvertOptions, ConvertProgress
from convert.write import staging
from convert.write.staging import staged_directory
from mlx_starflow.bundle.load import read_bundle_config
from mlx_starflow.errors import StarflowError, UsageError, WeightsError


def test_an_existing_target_is_refused(tmp_path):
    path, target = small(tmp_path), tmp_path / "out"
    convert_checkpoint(ConvertOptions(path, target))
    before = (target / "config.json").read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        convert_checkpoint(ConvertOptions(path, target, name="other"))
    assert (target / "config.json").read_bytes() == before
    convert_checkpoint(ConvertOptions(path, target, name="other", overwrite=True))
    assert read_bundle_config(target).name == "other"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out"])


def test_an_empty_directory_is_no_target_yet(tmp_path, monkeypatch):
    path, target = small(tmp_path), tmp_path / "out [4 bits]"
    target.mkdir()
    convert_checkpoint(ConvertOptions(path, target))
    flow_of(target)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    convert_checkpoint(ConvertOptions(path, Path(".")))
    flow_of(here)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "here", target.name])


def test_overwrite_leaves_other_things_alone(tmp_path):
    path = small(tmp_path)
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(precious)
    for target in (precious, link, path):
        with pytest.raises(UsageError):
            convert_checkpoint(ConvertOptions(path, target, overwrite=True))
    assert (precious / "chapter1").read_text() == "x"


def test_a_failed_run_leaves_the_target_as_it_was(tmp_path):
    path, target = small(tmp_path), tmp_path / "out"
    convert_checkpoint(ConvertOptions(path, target))
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    arrays = small_model.arrays()
    arrays["blocks.0.proj_out.bias"][0] = np.nan  # found while writing
    tf.save(path, arrays)
    with pytest.raises(WeightsError, match="NaN"):
        convert_checkpoint(ConvertOptions(path, target, overwrite=True))
    assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out"])


def test_closing_the_iterator_cancels(tmp_path):
    steps = convert_steps(ConvertOptions(small(tmp_path), tmp_path / "out"))
    assert isinstance(next(steps), ConvertProgress)
    assert any("partial" in p.name for p in tmp_path.iterdir())
    steps.close()
    assert [p.name for p in tmp_path.iterdir()] == [small_model.FILE_NAME]


def test_disk_space_is_checked_first(tmp_path, monkeypatch):
    path = small(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=(16 << 20) + 1000)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda p: usage)
    with pytest.raises(StarflowError, match="are free"):
        convert_checkpoint(ConvertOptions(path, tmp_path / "deep" / "out"))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    """Somebody else may take the space that was there at the start."""
    path, count = small(tmp_path), 0

    def pwrite(*arguments: object) -> int:
        nonlocal count
        count += 1
        if count > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    original = os.pwrite
    monkeypatch.setattr("mlx_starflow.bundle.safetensors.os.pwrite", pwrite)
    with pytest.raises(OSError, match="No space left"):
        convert_checkpoint(ConvertOptions(path, tmp_path / "out"))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_a_killed_run_left_is_cleared_up(tmp_path):
    target = tmp_path / "out"
    dead = tmp_path / ".out.partial-work-dead"
    dead.mkdir()
    (dead / "model.safetensors").write_bytes(b"x")
    aside = tmp_path / ".out.partial-old-dead"
    (aside / "replaced").mkdir(parents=True)
    (aside / "replaced" / "config.json").write_text('{"format_version": 1}')
    with pytest.raises(UsageError, match="--overwrite"), staged_directory(target):
        pass  # the one that was being replaced is back, and is not overwritten unasked
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with staged_directory(target, overwrite=True) as work:
        (work / "config.json").write_text('{"format_version": 1, "new": 1}')
        with staged_directory(tmp_path / "out2"):
            assert work.exists()
    assert "new" in (target / "config.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out2"]


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path):
    target = tmp_path / "out"
    first = staged_directory(target)
    work = first.__enter__()
    with staged_directory(target) as other:
        assert work.exists() and other.exists()
        (other / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="--overwrite"):  # the other one was quicker
        first.__exit__(None, None, None)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_work_directory_is_not_cleared_up_before_it_is_locked(tmp_path, monkeypatch):
    target, original, others = tmp_path / "out", Path.mkdir, []

    def other():
        with staged_directory(tmp_path / "out") as work:
            (work / "config.json").write_text("{}")

    def mkdir(path, *arguments, **options):
        original(path, *arguments, **options)
        if "partial-work" in path.name and not others:
            others.append(threading.Thread(target=other))
            others[0].start()
            others[0].join(0.3)  # it may take all the time it wants to

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(UsageError, match="--overwrite"), staged_directory(target) as work:
        others[0].join()
        (work / "config.json").write_text("{}")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
