"""Commands given hostile files: nothing is fetched, no escape reaches the terminal, nothing is
lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image

from convert import from_torch
from mlx_starflow.errors import UsageError
from mlx_starflow.files import visible
from mlx_starflow.generation.settings import Settings
from mlx_starflow.hub.acquire import check_stored_model
from mlx_starflow.pictures.clips import clip_metadata, save_clip
from mlx_starflow.pictures.metadata import read_metadata, save_picture

ESCAPES = "\x1b]0;title\x07\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\u202e"


@pytest.fixture
def fox(run, colours, tmp_path) -> Path:  # noqa: F811
    """A picture made with the tiny model, its settings inside."""
    assert run("generate", "red", "--seed", 3, "-m", colours, "-o", "fox.png").status == 0
    return tmp_path / "fox.png"


@pytest.fixture
def film(run, filmed, tmp_path) -> Path:  # noqa: F811
    """A clip made with the tiny model, its settings inside."""
    made = run("video", "red", "--seed", 3, "--frames", 5, "-m", filmed, "-o", "film.gif")
    assert made.status == 0, made.err
    return tmp_path / "film.gif"


def rewritten(path: Path, **changes) -> Path:
    target = path.with_name("friend.png")
    target.unlink(missing_ok=True)
    settings = {**read_metadata(path), **changes}
    return save_picture(Image.open(path), target, settings)


MODELS = [
    "some/model",
    "apple/starflow",
    "starflow",
    "/nowhere",
    "hub:some/model",
    "a\x1b[2Jb",
    "x" * 4000,
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: ascii(m)[:20])
def test_a_picture_does_not_choose_what_is_fetched(model, run, fox, hub, monkeypatch):  # noqa: F811
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    outcome = run("generate", "-C", rewritten(fox, model=model), "-o", "again.png")
    assert outcome.status == 2 and "--model" in outcome.err and "\x1b" not in outcome.err
    assert hub.requests == [] and not Path("again.png").exists()


@pytest.mark.parametrize("model", [m for m in MODELS if m.isprintable()], ids=lambda m: m[:20])
def test_a_clip_does_not_choose_what_is_fetched(model, run, film, hub, monkeypatch):  # noqa: F811
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    friend = save_clip(np.zeros((3, 8, 8, 3), np.uint8), film.with_name("friend.gif"), 8,
                       {**clip_metadata(film), "model": model})  # fmt: skip
    outcome = run("video", "-C", friend, "-o", "again.gif")
    assert outcome.status == 2 and "--model" in outcome.err, outcome.err
    assert hub.requests == [] and not Path("again.gif").exists()


def test_a_noise_file_does_not_choose_what_is_fetched(run, hub, monkeypatch, tmp_path):  # noqa: F811
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    noise = {"noise": mx.zeros((1, 12, 12, 3))}
    kept = (({"model": "some/model"}, 2), ({"model": 3}, 1), ({"prompt": ["a"]}, 1))
    for stored, status in (*kept, ({"guidance": "x"}, 1)):
        about = {"mlx-starflow": json.dumps(stored)}
        mx.save_safetensors(str(tmp_path / "a.safetensors"), noise, about)
        outcome = run("decode", "a.safetensors", "-o", "again.png")
        assert outcome.status == status and "Unexpected" not in outcome.err, outcome.err
    assert hub.requests == []


def test_a_model_on_this_disk_may_be_chosen(run, fox, colours, tmp_path):  # noqa: F811
    assert run("generate", "-C", fox, "-o", "again.png").status == 0
    assert np.array_equal(np.asarray(Image.open("again.png")), np.asarray(Image.open(fox)))
    # ... but not one whose components would have to be fetched.
    copy = shutil.copytree(colours, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["components"]["vae"] = "hub:some/vae"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="not .completely. on this disk"):
        check_stored_model(str(copy), "fox.png")


# The terminal


def test_escapes_are_shown_and_not_obeyed(run, fox, colours, tmp_path):  # noqa: F811
    hostile = rewritten(fox, prompt=ESCAPES, weights=ESCAPES, model_name=ESCAPES, device=ESCAPES,
                        unknown_key_=ESCAPES)  # fmt: skip
    copy = tmp_path / "bundle"
    shutil.copytree(colours, copy)
    config = json.loads((copy / "config.json").read_text())
    config |= {"licence": ESCAPES, "attribution": ESCAPES, "name": ESCAPES}
    (copy / "config.json").write_text(json.dumps(config))
    words = {"words": [ESCAPES], "subject": [ESCAPES], "place": [ESCAPES]}
    (copy / "vocabulary.json").write_text(json.dumps(words))
    odd = tmp_path / f"a{ESCAPES.replace('/', '')}.png"
    odd.write_bytes(b"no picture")
    for arguments in (
        ["info", hostile],
        ["info", copy],
        ["info", copy, "--json"],
        ["generate", "-C", hostile, "-m", copy, "-o", "b.png"],
        ["generate", ESCAPES, "-m", copy, "-o", "c.png"],
        ["score", odd, "-m", copy],
        ["info", odd],
        ["generate", "red", "-m", f"no{ESCAPES}model"],
        ["generate", "red", "-m", copy, "--sampler", ESCAPES],
        ["models", "show", ESCAPES],
    ):
        outcome = run(*arguments)
        told = outcome.out + outcome.err
        assert told and visible.visible(told) == told, arguments


def test_the_bar_still_draws_itself():
    stream = io.StringIO()
    wrapped = visible.VisibleStream(stream)
    wrapped.write("a\x1b[2J\r\n")
    visible.raw(wrapped).write("\r\x1b[K")
    assert stream.getvalue() == "a\\x1b[2J\\r\n\r\x1b[K"
    before = sys.stdout
    with visible.visible_output():
        assert isinstance(sys.stdout, visible.VisibleStream)
    assert sys.stdout is before


def test_the_converter_shows_escapes_too(tmp_path, capfd):
    with pytest.raises(SystemExit) as ended:
        from_torch.main([str(tmp_path / f"a{ESCAPES}.pth"), "-o", str(tmp_path / "out")])
    told = "".join(capfd.readouterr())
    assert ended.value.code == 2 and visible.visible(told) == told and "\\x1b" in told


# Amounts


@pytest.mark.parametrize(
    "arguments",
    [
        ["--num-images", "1000000000"],
        ["--num-images", "5000"],
        ["--auto-seeds", "1000000000"],
        ["--best-of", "1000000000"],
    ],
    ids=" ".join,
)
def test_too_many_are_refused_at_once(arguments, run, colours):  # noqa: F811
    began = time.monotonic()
    outcome = run("generate", "red", "-m", colours, *arguments)
    assert outcome.status == 2 and "at most" in outcome.err
    assert time.monotonic() - began < 5


def test_a_batch_of_thousands_in_a_picture_is_refused(run, fox):  # noqa: F811
    batch = {"index": 0, "prompts": ["red"] * 3000, "seeds": list(range(3000))}
    outcome = run("generate", "-C", rewritten(fox, batch=batch), "-o", "again.png")
    assert outcome.status == 1 and "prompts" in outcome.err and not Path("again.png").exists()


def test_endless_prompts_are_refused(run, colours):  # noqa: F811
    outcome = run("generate", "--prompt-file", "/dev/zero", "-m", colours)
    assert outcome.status == 2 and "more than 16 MB" in outcome.err


def test_a_sidecar_replaces_nothing(run, colours, tmp_path):  # noqa: F811
    (tmp_path / "fox.json").write_text("my thesis")
    outcome = run("generate", "red", "-m", colours, "-o", "fox.png", "--metadata")
    assert outcome.status == 0 and (tmp_path / "fox.json").read_text() == "my thesis"
    assert json.loads((tmp_path / "fox_1.json").read_text())["prompt"] == "red"
    assert "fox_1.json" in outcome.out


def test_an_output_that_is_a_link_to_nowhere(run, colours, tmp_path):  # noqa: F811
    (tmp_path / "fox.png").symlink_to(tmp_path / "nowhere.png")
    outcome = run("generate", "red", "-m", colours, "-o", "fox.png")
    assert outcome.status == 0 and (tmp_path / "fox_1.png").is_file()
    assert not (tmp_path / "nowhere.png").exists()


# Files


def test_a_compressed_picture_that_is_a_pipe(run, colours, tmp_path):  # noqa: F811
    pytest.importorskip("constriction")
    os.mkfifo(tmp_path / "pipe.flow")
    os.mkfifo(tmp_path / "in.flow")
    began = time.monotonic()
    outcome = run("decompress", "pipe.flow", "-m", colours)
    assert outcome.status == 1 and "pipe.flow" in outcome.err and "named pipe" in outcome.err
    (tmp_path / "endless.flow").symlink_to("/dev/zero")
    outcome = run("decompress", "endless.flow", "-m", colours)
    assert outcome.status == 1 and "endless.flow" in outcome.err and "device" in outcome.err
    with (tmp_path / "large.flow").open("wb") as file:
        file.truncate(1 << 40)
    outcome = run("decompress", "large.flow", "-m", colours)
    assert outcome.status == 1 and "large.flow" in outcome.err and "more than" in outcome.err
    assert time.monotonic() - began < 20


OPTIONS = {
    "a truth that is none": "iters: !!bool maybe",
    "a number that is none": "iters: !!int x",
    "a float that is none": "learning_rate: !!float x",
    "a tag": "iters: !!int 3",
    "a time of a map": "iters: !!timestamp {a: 1}",
    "an order that is none": "iters: !!omap 3",
    "pairs that are none": "iters: !!pairs 3",
    "a set": "!!set {iters}",
    "bytes": "data: !!binary aGk=",
    "a foreign tag": "iters: !!python/object/apply:os.system [ls]",
    "our own tag": "iters: !mine 3",
    "an alias": "data: &a x\nmodel: *a",
    "a date": "iters: 2020-01-01",
    "a date that is none": "iters: 2020-99-99",
    "a key of a list": "? [a]\n: b",
    "a key of a map": "{a: 1}: b",
    "a key of a number": "3: b",
    "a list": "- iters",
    "a word": "iters",
    "a map of maps": "iters: {a: {b: c}}",
    "infinity": "learning_rate: .inf",
    "none": "learning_rate: .nan",
    "digits": "iters: " + "9" * 5000,
    "base 60": "iters: " + "1:" * 3000 + "1",
    "deep": "iters: " + "[" * 900 + "]" * 900,
    "many": "a: b\n" * 2000,
    "half a character": 'data: "\\ud800"',
    "a directive": "%YAML 9.9\n---\niters: 3",
    "a control character": "iters: \x01",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_train_that_are_no_plain_values(name, run, colours, tmp_path):  # noqa: F811
    (tmp_path / "a.yaml").write_text(OPTIONS[name])
    outcome = run("train", "-c", "a.yaml", "-m", colours, "--data", "nowhere")
    assert outcome.status in (1, 2) and "Unexpected" not in outcome.err, outcome.err
    assert "a.yaml" in outcome.err and len(outcome.err) < 1000, outcome.err


def test_settings_that_lack_a_key_name_it(fox):
    whole = read_metadata(fox)
    Settings.from_dict(whole, "fox.png")
    for key in ("aspect_ratio", "width", "height", "seed"):
        for lacking in ({**whole, key: None}, {k: v for k, v in whole.items() if k != key}):
            with pytest.raises(UsageError, match=f"fox.png.*'{key}' is missing"):
                Settings.from_dict(lacking, "fox.png")
