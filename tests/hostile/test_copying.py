"""Making a model from another one copies only its own files, and removes only its own leftovers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from command import run  # noqa: F401
from teaching import adapter, pictures

from convert.read.published_yaml import settings_from
from convert.rules.starflow_text import read_labels
from mlx_starflow.adapters.files import AdapterConfig
from mlx_starflow.errors import CheckpointError
from mlx_starflow.generation.components import Components
from mlx_starflow.training.checkpoint import Checkpoint

SECRET = "root:x:0:0\n"


@pytest.fixture
def bundle(colours, tmp_path) -> Path:
    """A bundle with all kinds of files that are copied."""
    copy = shutil.copytree(colours, tmp_path / "bundle")
    config = json.loads((copy / "config.json").read_text())
    config["components"]["text_encoder"] = "text_encoder"
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "text_encoder").mkdir()
    for name in ("LICENSE", "MODEL_CARD.md", "text_encoder/config.json",
                 "text_encoder/tokenizer.json"):  # fmt: skip
        (copy / name).write_text("{}")
    mx.save_safetensors(str(copy / "text_encoder/model.safetensors"), {"a": mx.zeros(3)})
    words = {"words": ["red"], "subject": ["red"], "place": []}
    (copy / "vocabulary.json").write_text(json.dumps(words))
    return copy


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "elsewhere" / "secret"
    path.parent.mkdir()
    path.write_text(SECRET)
    return path


@pytest.fixture
def ways(bundle, tmp_path) -> dict[str, tuple]:
    """Commands that make the model "mine" from the bundle."""
    style = adapter(bundle, tmp_path / "style")
    data = pictures(tmp_path / "data", 4)
    return {
        "fuse": ("fuse", "-m", bundle, "--adapter-path", style, "--samples", 2,
                 "--save-path", "mine"),
        "scratch": ("train", "--data", data, "--from-scratch", "--shape", "1,1x32", "-m", bundle,
                    "--iters", 1, "--batch-size", 1, "--previews", 0, "--save-path", "mine",
                    "--adapter-path", "training"),
    }  # fmt: skip


def files(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir()}


PLACES = {
    "fuse": ("LICENSE", "MODEL_CARD.md", "vocabulary.json", "text_encoder/tokenizer.json",
             "text_encoder/added_tokens.json", "text_encoder/model.safetensors"),
    "scratch": ("vocabulary.json", "text_encoder/tokenizer.json",
                "text_encoder/model.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize(("way", "name"), [(w, n) for w, names in PLACES.items() for n in names])
def test_a_link_that_leads_elsewhere(way, name, run, bundle, secret, ways, tmp_path):  # noqa: F811
    (bundle / name).unlink(missing_ok=True)
    (bundle / name).symlink_to(secret)
    made = run(*ways[way])
    assert made.status == 1 and "leads outside its directory" in made.err, made.err
    assert Path(name).name in made.err and not list(tmp_path.glob("*mine*"))


@pytest.mark.parametrize(("way", "name"), [(w, n) for w, names in PLACES.items() for n in names])
def test_a_pipe(way, name, run, bundle, ways, tmp_path):  # noqa: F811
    (bundle / name).unlink(missing_ok=True)
    os.mkfifo(bundle / name)
    made = run(*ways[way])
    assert made.status == 1 and Path(name).name in made.err, made.err
    assert "[" not in made.err and not list(tmp_path.glob("*mine*"))


@pytest.mark.parametrize("way", PLACES)
def test_other_files_are_not_copied(way, run, bundle, secret, ways, tmp_path):  # noqa: F811
    for name in ("notes", "text_encoder/notes.json", "flow/notes"):
        (bundle / name).symlink_to(secret)
    os.mkfifo(bundle / "pipe")
    os.mkfifo(bundle / "text_encoder" / "pipe")
    (bundle / "endless.safetensors").symlink_to("/dev/zero")
    made = run(*ways[way])
    assert made.status == 0, made.err
    found = files(tmp_path / "mine")
    own = {"config.json", "vocabulary.json", "flow/config.json", "text_encoder/config.json",
           "text_encoder/tokenizer.json", "text_encoder/model.safetensors"}  # fmt: skip
    assert own <= found and not any("notes" in n or "pipe" in n or "endless" in n for n in found)
    assert ("LICENSE" in found) == ("MODEL_CARD.md" in found) == (way == "fuse")


def test_a_link_inside_the_bundle_is_followed(run, bundle, ways, tmp_path):  # noqa: F811
    (bundle / "terms").write_text("terms")
    (bundle / "LICENSE").unlink()
    (bundle / "LICENSE").symlink_to("terms")
    made = run(*ways["fuse"])
    assert made.status == 0, made.err
    assert (tmp_path / "mine/LICENSE").read_text() == "terms"
    assert not (tmp_path / "mine/LICENSE").is_symlink()


# Class names beside a checkpoint


def labels(folder: Path) -> tuple[str, ...]:
    settings = settings_from({"text": "x.vocab", "img_size": 64}, "the settings", ())
    return read_labels(settings, [folder])


def test_class_names_are_read(tmp_path):
    assert labels(tmp_path) == ()
    (tmp_path / "x.vocab").write_text("cat\n\ndog\n")
    assert labels(tmp_path) == ("cat", "dog")


def test_class_names_that_are_a_link_elsewhere(secret, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.vocab").symlink_to(secret)
    with pytest.raises(CheckpointError, match=r"x\.vocab.*leads outside its directory"):
        labels(tmp_path / "model")


def test_class_names_that_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "x.vocab"
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(CheckpointError, match=r"x\.vocab is not text in UTF-8"):
        labels(tmp_path)
    monkeypatch.setattr("convert.rules.starflow_text.MAX_VOCABULARY_BYTES", 10)
    path.write_bytes(b"a" * 11)
    with pytest.raises(CheckpointError, match=r"x\.vocab.*more than 10 bytes"):
        labels(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match=r"x\.vocab.*named pipe"):
        labels(tmp_path)


# Leftovers

FOREIGN = (".film.mp4.part", ".setup-1234abcd.part", ".mine.part", ".adapters.part")


def test_a_training_removes_only_its_own_leftovers(colours, tmp_path):
    own = (".adapters-0123abcd.part", ".0000100_adapters-0123abcd.part",
           ".training_state-0123abcd.part", ".adapter_config-0123abcd.part",
           ".loss-0123abcd.part", ".latents-0123abcd.part")  # fmt: skip
    for name in (*FOREIGN, *own):
        (tmp_path / name).write_text("half")
    (tmp_path / ".loss-ffffffff.part").mkdir()
    Checkpoint(tmp_path, AdapterConfig(Components(colours, "x").base))
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {*FOREIGN, ".loss-ffffffff.part"}


@pytest.mark.parametrize("way", PLACES)
def test_a_new_model_removes_nothing_beside_it(way, run, ways, tmp_path):  # noqa: F811
    (tmp_path / ".mine.part").mkdir()
    (tmp_path / ".mine.part" / "thesis").write_text("my thesis")
    made = run(*ways[way])
    assert made.status == 0, made.err
    assert (tmp_path / ".mine.part" / "thesis").read_text() == "my thesis"
    assert not list(tmp_path.glob(".mine-*"))
