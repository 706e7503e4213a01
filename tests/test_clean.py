"""``models clean`` removes only what can be made again; completion of names."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from command import run  # noqa: F401

from mlx_starflow.hub import cache, clean
from mlx_starflow.hub.resumable import PARTIAL


@pytest.fixture
def caches(tmp_path, monkeypatch, colours):
    """Both caches with a complete model, an incomplete one, and what broke off."""
    ours, hub = tmp_path / "ours", tmp_path / "hub"
    monkeypatch.setenv(cache.VARIABLE, str(ours))
    monkeypatch.setattr(clean, "hub_cache", lambda: hub)
    monkeypatch.setattr("mlx_starflow.cli.models.hub_cache", lambda: hub)
    shutil.copytree(colours, cache.cached_path("some/model", "float32"))
    shutil.copytree(colours, cache.cached_path("some/other", "float32"))
    (cache.cached_path("some/other", "float32") / "flow" / "model.safetensors").unlink()
    (ours / ".removed-7-x").mkdir()
    (ours / "windows.json").write_text("{}")
    (ours / ".locks").mkdir()
    blobs = hub / "models--some--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "complete").write_bytes(bytes(9))
    for name, age in (("old", 2 * clean.FRESH), ("fresh", 0)):
        path = blobs / f"{name}{PARTIAL}"
        path.write_bytes(bytes(9))
        os.utime(path, (time.time() - age,) * 2)
    return tmp_path


def names(folder) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_only_what_broke_off_goes(run, caches):  # noqa: F811
    before = sorted(caches.rglob("*"))
    shown = run("models", "clean", "--dry-run")
    assert shown.status == 0 and sorted(caches.rglob("*")) == before
    cleaned = run("models", "clean")
    assert [line.replace("would remove", "removed") for line in shown.lines] == cleaned.lines
    assert names(caches / "ours") == {"some--model@float32", ".locks"}
    assert names(caches / "hub" / "models--some--model" / "blobs") == {
        "complete", f"fresh{PARTIAL}",
    }  # fmt: skip
    assert str(caches / "ours") in cleaned.err and "hf cache" in cleaned.err
    assert run("models", "clean").out == ""


def test_all_takes_the_converted_models_too(run, caches):  # noqa: F811
    assert run("models", "clean", "--all", "--quiet").err == ""
    assert names(caches / "ours") == {".locks"}
    assert (caches / "hub" / "models--some--model" / "blobs" / "complete").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mlx-starflow generate red --sampler seq", ["sequential"]),
        ("mlx-starflow generate red --model apple/", ["apple/starflow", "apple/starflow-v"]),
        ("mlx-starflow score a.png --model my-m", ["my-model"]),
        ("mlx-starflow models show tarflow-a", ["tarflow-afhq-256"]),
        ("mlx-starflow mo", ["models"]),
        ("mlx-starflow video --preview-f", ["--preview-frames"]),
    ],
)
def test_names_are_completed(run, tmp_path, monkeypatch, words, expected):  # noqa: F811
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text("{}")
    monkeypatch.setenv("_MLX_STARFLOW_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert run().out.split() == expected
    monkeypatch.setenv("_MLX_STARFLOW_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
    assert all(f'"{name}"' in run().out for name in expected)
