"""The benchmark command: its table, its JSON, its mistakes."""

from __future__ import annotations

import json

import pytest
from command import run  # noqa: F401
from PIL import Image

from mlx_starflow.benchmark.quantization_cost import PRECISIONS
from mlx_starflow.cli.benchmark_tables import histogram
from mlx_starflow.cli.tables import aligned

RANDOM = ("benchmark", "--random", "64,1,1", "--grid", 2, "--text", "3x8", "--repeat", 1)


def test_the_table_names_every_sampler(run):  # noqa: F811
    outcome = run(*RANDOM, "--samplers", "sequential,sliding:2", "--prompts", 1, "--batch", 2)
    assert outcome.status == 0, outcome.err
    assert "width 64, layers 1 1, text 3x8" in outcome.lines[0]
    for title in ("Seconds", "Work", "Accuracy", "Sweeps"):
        assert any(line.startswith(title) for line in outcome.lines)
    assert sum(line.startswith("sliding:2 ") for line in outcome.lines) == 6 + 4
    assert outcome.err == ""


def test_one_object_of_json(run, colours):  # noqa: F811
    outcome = run(
        "benchmark", "--model", colours, "--samplers", "sequential,sliding", "--repeat", 1, "--json"
    )
    assert outcome.status == 0, outcome.err
    data = json.loads(outcome.out)
    assert data["prompts"] == ["red", "green"] and data["guidance"] == 1.5
    assert data["text_encoding"]["peak_memory"] > 0
    sequential, sliding = data["samplers"]
    assert sequential["image_mse"] == 0 and sliding["image_psnr"] > 60
    assert sliding["speedup"]["runs"] == 2


@pytest.mark.parametrize("name", ["classes", "unconditional"])
def test_models_without_text(run, request, name):  # noqa: F811
    outcome = run(
        "benchmark", "--model", request.getfixturevalue(name), "--samplers", "sliding",
        "--repeat", 1, "--prompts", 1, "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (row,) = json.loads(outcome.out)["samplers"]
    assert row["distance"] < 1e-3


def test_quantization_of_a_model(run, wide, tmp_path):  # noqa: F811
    outcome = run("benchmark", "--model", wide, "--quantization", "--prompts", 1)
    assert outcome.status == 0, outcome.err
    for name in ("float32", *(p.name for p in PRECISIONS)):
        assert any(line.startswith(f"{name} ") for line in outcome.lines)
    Image.new("RGB", (12, 12), "red").save(tmp_path / "red.png")
    outcome = run(
        "benchmark", "--model", wide, "--quantization", "--prompts", 1, "--json",
        "--picture", tmp_path / "red.png",
    )  # fmt: skip
    data = json.loads(outcome.out)
    assert data["scored"] == data["sampled"] == 1
    assert data["rows"][0]["change_error"] is None
    assert data["rows"][-1]["image_psnr"] > 0


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--random 64,1,1 --samplers newton", "expected one of auto"),
        ("--random 64", "WIDTH,LAYERS"),
        ("--random 64,1,1 --text 3", "LENGTHxWIDTH"),
        ("--random 64,1,1 --model here", "leave out --model"),
        ("--grid 4", "--grid needs --random"),
        ("--random 64,1,1 --repeat 0", "repeat"),
        ("--random 64,1,1 --quantization --batch 2 --samplers jacobi", "--samplers, --batch"),
        ("--random 64,1,1 --picture a.png", "leave out --picture"),
        ("--model {unconditional} --guidance 2", "unconditional"),
        ("--prompt-file nowhere.txt", "no such file"),
    ],
)
def test_mistakes_are_told_before_any_work(run, unconditional, line, part):  # noqa: F811
    outcome = run("benchmark", *line.format(unconditional=unconditional).split())
    assert outcome.status == 2 and part in outcome.err and outcome.out == ""


# Text


def test_a_long_histogram_is_shortened_without_losing_anything():
    assert histogram({3: 2, 1: 5}) == "1x5  3x2"
    counts = {n: n for n in range(1, 41)}
    parts = histogram(counts).split()
    assert len(parts) <= 8 and parts[0].startswith("1-")
    assert sum(int(p.split("x")[1]) for p in parts) == sum(counts.values())


def test_columns_stand_under_one_another():
    lines = aligned([["a", "long head"], ["longer", "1"]]).splitlines()
    assert lines == ["a       long head", "longer          1"]
