"""Exit status: 2 for a command line that is wrong, 1 for everything else; the same mistake gets the
same status in every command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image
from test_cli_pictures import SIDE, picture

NAMED_NOTHING = (  # every way to name a file that is not there
    "score none.png",
    "encode none.png",
    "vary none.png",
    "edit none.png --mask m.png --prompt red",
    "edit a.png --mask none.png --prompt red",
    "interpolate none.png a.png",
    "decode none.safetensors",
    "decode none",
    "generate red --noise none.npy",
    "generate red --image none.png",
    "generate --prompt-file none.txt",
    "generate -C none.png",
    "generate -C none.json",
    "convert none.pth --output out",
    "info none.png",
    "compress none.png",
    "decompress none.flow",
    "watch fit none",
    "watch check a.png --reference none.json",
    "train --data none",
    "train -c none.yaml",
    "benchmark --prompt-file none.txt",
    "benchmark --quantization --picture none.png",
)
NO_MODEL = ("generate red", "score a.png", "encode a.png", "vary a.png", "interpolate a.png a.png",
            "edit a.png --mask m.png --prompt red", "benchmark", "compress a.png",
            "decompress a.flow", "watch fit a.png", "train --data .", "fuse")  # fmt: skip
NOT_WHAT_IT_SHOULD_BE = (  # a file is there and holds something else
    "score notes.png",
    "encode notes.png",
    "edit notes.png --mask m.png --prompt red",
    "edit a.png --mask notes.png --prompt red",
    "generate red --noise notes.npy",
    "decode notes.npy",
    "generate red --noise nan.npy",
    "generate --prompt-file bytes.txt",
    "generate --prompt-file blank.txt",
    "generate -C notes.json",
    "generate -C odd.json",
    "generate -C a.png",
    "compress notes.png",
    "decompress notes.flow",
    "watch check a.png --reference notes.json",
    "convert notes.pth --output out",
)
DOES_NOT_FIT = (  # the file is right, for another model
    "score large.png",
    "encode large.png",
    "vary large.png",
    "compress large.png",
    "edit a.png --mask large.png --prompt red",
    "generate red --noise small.npy",
)


@pytest.fixture
def colours(few_tokens):
    return few_tokens


@pytest.fixture
def place(tmp_path, no_hub):
    picture(tmp_path / "a.png")
    picture(tmp_path / "large.png", side=20)
    Image.new("L", (SIDE, SIDE), 255).save(tmp_path / "m.png")
    for suffix in ("png", "npy", "json", "pth", "flow"):
        (tmp_path / f"notes.{suffix}").write_text("some notes, which are long enough to be read")
    (tmp_path / "blank.txt").write_text("\n  \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x80")
    (tmp_path / "odd.json").write_text(json.dumps({"generator": "mlx-starflow", "seed": "seven"}))
    np.save(tmp_path / "nan.npy", np.full((1, SIDE, SIDE, 3), np.nan, np.float32))
    np.save(tmp_path / "small.npy", np.zeros((1, 4, 4, 3), np.float32))
    return tmp_path


def check(outcome, status: int) -> None:
    assert outcome.status == status, outcome.err
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith("mlx-starflow: ") and "Unexpected error" not in last
    assert outcome.out == ""


@pytest.mark.parametrize("line", NAMED_NOTHING)
def test_a_name_that_leads_nowhere_is_wrong_usage(run, place, colours, line):  # noqa: F811
    words = line.split()
    model = [] if words[0] in ("convert", "info") else ["--model", colours]
    outcome = run(*words, *model)
    check(outcome, 2)
    assert "none" in outcome.err


@pytest.mark.parametrize("line", NO_MODEL)
def test_a_model_that_is_nowhere_is_wrong_usage(run, place, line):  # noqa: F811
    check(run(*line.split(), "--model", "nowhere"), 2)
    check(run("info", "nowhere"), 2)


@pytest.mark.parametrize("line", NOT_WHAT_IT_SHOULD_BE)
def test_a_file_that_holds_something_else_is_a_failure(run, place, colours, line):  # noqa: F811
    model = [] if line.startswith("convert") else ["--model", colours]
    check(run(*line.split(), *model), 1)


@pytest.mark.parametrize("line", DOES_NOT_FIT)
def test_a_file_for_another_model_is_wrong_usage(run, place, colours, line):  # noqa: F811
    check(run(*line.split(), "--model", colours), 2)


EMPTY = (
    "convert @ --output out",
    "convert notes.pth --output=",
    "generate red --stepwise-image-output-dir=",
    "generate red --output @",
    "score @",
    "train --data=",
    "train --data . --adapter-path @",
    "doctor --report=",
    "watch check a.png --reference @",
    "watch fit @",
)


@pytest.mark.parametrize("line", EMPTY)
def test_an_empty_name_is_not_the_current_directory(run, place, line):  # noqa: F811
    words = ["" if word == "@" else word for word in line.split()]
    outcome = run(*words)
    check(outcome, 2)
    assert "name is empty" in outcome.err
