"""User mistakes: one sentence that says what to do, the right exit status, no output file."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image

from mlx_starflow.bundle.load import write_component
from mlx_starflow.cli.failures import explain
from mlx_starflow.errors import NumericsError

# name -> (command line, exit status, part of the message). {colours}, {classes} and
# {unconditional} are models.
MISTAKES = {
    "no command of this name": ("generat red", 2, "generate"),
    "no flag of this name": ("generate red --sed 1", 2, "--seed"),
    "a seed that is no number": ("generate red --seed abc", 2, "--seed"),
    "a seed below zero": ("generate red -m {colours} --seed=-1", 2, "whole number from 0"),
    "a seed too large": ("generate red -m {colours} --seed 99999999999", 2, "4294967295"),
    "no prompt": ("generate -m {colours}", 2, "needs a prompt"),
    "two prompts": ("generate red --prompt blue -m {colours}", 2, "once"),
    "words without quotes": ("generate a red fox -m {colours}", 2, "unexpected extra"),
    "a class that is none": ("generate purple -m {colours}", 2, "no class"),
    "a misspelt class": ("generate yelow -m {colours}", 2, "Did you mean 'yellow'?"),
    "a class number too large": ("generate 5 -m {classes}", 2, "from 0 to 4"),
    "a text for classes": ("generate fox -m {classes}", 2, "from 0 to 4"),
    "a prompt for an unconditional model": ("generate red -m {unconditional}", 2, "no prompt"),
    "guidance without condition": (
        "generate -m {unconditional} --guidance 2",
        2,
        "unconditional",
    ),
    "a misspelt model": ("generate red -m appl/starflow --quiet", 1, "apple/starflow"),
    "a model that is nowhere": ("generate red -m nowhere", 2, "no directory of this name"),
    "a directory without a model": ("generate red -m empty", 2, "config.json is missing"),
    "a file as model": ("generate red -m notes.txt", 2, "notes.txt"),
    "a size it was not trained for": (
        "generate red -m {colours} --width 100",
        2,
        "14x10",
    ),
    "a shape it was not trained for": (
        "generate red -m {colours} --aspect-ratio 7:1",
        2,
        "21:9 (18x8)",
    ),
    "a shape for squares only": (
        "generate 1 -m {classes} --aspect-ratio 3:2",
        2,
        "1:1 (8x8)",
    ),
    "guidance below zero": ("generate red -m {colours} --guidance=-1", 2, "0 (none) or more"),
    "a sampler that is none": ("generate red -m {colours} --sampler euler", 2, "sequential"),
    "no steps at all": ("generate red -m {colours} --steps 0", 2, "1 or more"),
    "steps for the sequential sampler": (
        "generate red -m {colours} --sampler sequential --steps 4",
        2,
        "sequential",
    ),
    "a TarFlow's flag": ("generate red -m {colours} --annealed", 2, "TarFlow"),
    "a learned denoiser that is not there": (
        "generate red -m {colours} --denoiser learned",
        2,
        "use 'score'",
    ),
    "a noise level without denoising": (
        "generate red -m {colours} --no-denoise --noise-std 1",
        2,
        "without denoising",
    ),
    "a type that is none": ("generate red -m {colours} --dtype int8", 2, "bfloat16"),
    "three bits": ("generate red -m {colours} -q 3", 2, "'4', '8'"),
    "no pictures at all": ("generate red -m {colours} --num-images 0", 2, "1"),
    "seeds given and drawn": (
        "generate red -m {colours} --seed 1 --auto-seeds 2",
        2,
        "--auto-seeds",
    ),
    "a format that is none": ("generate red -m {colours} -o a.gif", 2, ".webp"),
    "no suffix": ("generate red -m {colours} -o picture", 2, ".png"),
    "a directory as output": ("generate red -m {colours} -o empty", 2, "image.png"),
    "a file where a directory goes": (
        "generate red -m {colours} -o notes.txt/a.png",
        2,
        "is a file",
    ),
    "a place that is read-only": ("generate red -m {colours} -o /proc/a.png", 1, "/proc"),
    "an empty prompt file": ("generate --prompt-file blank.txt -m {colours}", 1, "empty"),
    "a prompt file that is missing": (
        "generate --prompt-file x.txt -m {colours}",
        2,
        "no such file",
    ),
    "a prompt file that is a picture": (
        "generate --prompt-file bytes.bin -m {colours}",
        1,
        "UTF-8",
    ),
    "noise that is missing": ("generate red -m {colours} --noise x.npy", 2, "no such file"),
    "noise of another size": ("generate red -m {colours} --noise small.npy", 2, "(1, 12, 12, 3)"),
    "noise that is no number": ("generate red -m {colours} --noise nan.npy", 1, "NaN"),
    "noise in another format": ("generate red -m {colours} --noise notes.txt", 1, ".safetensors"),
    "noise that is a text": ("generate red -m {colours} --noise fake.npy", 1, "not a .npy file"),
    "latents in another format": (
        "generate red -m {colours} --save-latents a.png",
        2,
        ".safetensors",
    ),
    "a picture without settings": ("generate -C plain.png", 1, "holds no settings"),
    "a replay of nothing": ("generate -C missing.png", 2, "no such file"),
    "a replay of a text": ("generate -C notes.txt", 1, "not a picture"),
    "a replay of another JSON": ("generate -C other.json", 1, "not settings of mlx-starflow"),
    "a replay of broken JSON": ("generate -C broken.json", 1, "not valid JSON"),
    "info on nothing": ("info missing.png", 2, "picture or a model"),
    "a known model misspelt": ("models show starflwo", 2, "Did you mean 'starflow'?"),
    "removing the default": ("models remove default", 2, "cannot be removed"),
}


@pytest.fixture
def place(tmp_path, no_hub):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("some notes")
    (tmp_path / "blank.txt").write_text("\n  \n")
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe\x80")
    (tmp_path / "fake.npy").write_text("not an array")
    (tmp_path / "other.json").write_text(json.dumps({"seed": 1}))
    (tmp_path / "broken.json").write_text("{")
    np.save(tmp_path / "small.npy", np.zeros((1, 4, 4, 3), np.float32))
    np.save(tmp_path / "nan.npy", np.full((1, 12, 12, 3), np.nan, np.float32))
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    return tmp_path


def files(place):
    return sorted(str(p) for p in place.rglob("*"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence(run, place, colours, classes, unconditional, mistake):  # noqa: F811
    command, status, says = MISTAKES[mistake]
    before = files(place)
    models = {"colours": colours, "classes": classes, "unconditional": unconditional}
    outcome = run(*(word.format(**models) for word in command.split()))
    assert outcome.status == status, outcome.err
    assert says in outcome.err
    assert outcome.err.startswith("mlx-starflow: ") and outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert files(place) == before


def test_debug_shows_the_traceback(run, place):  # noqa: F811
    assert "Traceback" in run("generate", "red", "-m", "nowhere", "--debug").err


def test_a_fault_of_ours_asks_for_a_report(run, place, colours, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mlx_starflow.generation.draw.denoise", lambda *_: 1 / 0)
    outcome = run("generate", "red", "-m", colours)
    assert outcome.status == 1 and "ZeroDivisionError" in outcome.err and "--debug" in outcome.err


def test_a_picture_with_nan_is_never_saved(run, place, colours):  # noqa: F811
    before = files(place)
    outcome = run("generate", "red", "-m", colours, "--noise-std", "1e30")
    assert outcome.status == 1 and "NaN or infinity" in outcome.err
    assert files(place) == before


def test_a_damaged_model_names_the_tensor(run, place, colours):  # noqa: F811
    import mlx.core as mx

    weights = dict(mx.load(str(colours / "flow" / "model.safetensors")))
    del weights["blocks.1.proj_out.weight"]
    config = json.loads((colours / "flow" / "config.json").read_text())
    write_component(place / "broken" / "flow", config, weights)
    (place / "broken" / "config.json").write_text((colours / "config.json").read_text())
    outcome = run("generate", "red", "-m", "broken")
    assert outcome.status == 1 and "'blocks.1.proj_out.weight'" in outcome.err


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (MemoryError(), 1, "--low-ram"),
        (RuntimeError("[metal::malloc] Unable to allocate 9 bytes"), 1, "--quantize 4"),
        (OSError(28, "No space left on device"), 1, "disk is full"),
        (PermissionError(13, "Permission denied", "x.png"), 1, "x.png: Permission denied"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (NumericsError("holds NaN"), 1, "NaN"),
    ],
)
def test_what_cannot_be_provoked_here_is_in_the_table(error, status, says):
    failure = explain(error)
    assert failure.status == status and says in failure.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission(run, place, colours):  # noqa: F811
    (place / "locked").mkdir(mode=0o500)
    outcome = run("generate", "red", "-m", colours, "-o", "locked/a.png")
    assert outcome.status == 1 and "permission denied" in outcome.err
