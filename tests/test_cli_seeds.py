"""``--seed`` takes several numbers in some commands, and never swallows other arguments."""

from __future__ import annotations

import pytest
from command import run  # noqa: F401
from test_cli_pictures import picture

from mlx_starflow.cli.arguments import join_seeds, split_strength
from mlx_starflow.pictures.metadata import read_metadata


@pytest.fixture
def colours(few_tokens):
    return few_tokens


def test_numbers_belong_to_the_seed_before_them():
    assert join_seeds(["a", "--seed", "1", "2", "-o", "3"]) == ["a", "--seed", "1 2", "-o", "3"]
    assert join_seeds(["--seed", "1", "x", "2"]) == ["--seed", "1", "x", "2"]
    assert join_seeds(["--seed", "--", "--seed", "1", "2"]) == [
        "--seed", "--", "--seed", "1", "2",
    ]  # fmt: skip
    assert join_seeds(["--seed", "1", "2", "--seed", "3"]) == ["--seed", "1 2", "--seed", "3"]
    assert join_seeds(["--seed"]) == ["--seed"]


def test_a_share_after_a_picture_is_its_strength():
    assert split_strength(["a", "--image", "b.png", "0.3", "-o", "c"]) == [
        "a", "--image", "b.png", "--image-strength", "0.3", "-o", "c",
    ]  # fmt: skip
    assert split_strength(["--image", "b.png", "a fox"]) == ["--image", "b.png", "a fox"]
    assert split_strength(["--image", "0.3"]) == ["--image", "0.3"]


def test_the_class_of_a_model_is_not_eaten(run, classes, tmp_path):  # noqa: F811
    refused = run("generate", "--seed", 7, 3, "--model", classes)
    assert refused.status == 2 and not list(tmp_path.iterdir())
    assert "generate 3 --seed 7" in refused.err and "--seed 7 --seed 3" in refused.err
    plain = run("generate", "--seed", 7, "--seed", 3, "--model", classes)
    assert plain.lines == ["image_seed_7.png", "image_seed_3.png"]
    drawn = run("generate", 3, "--seed", 7, "--model", classes, "-o", "three.png")
    assert read_metadata(drawn.lines[0])["prompt"] == "3"
    named = run("generate", "--prompt", 3, "--seed", 7, 8, "--model", classes, "-o", "t.png")
    assert named.lines == ["t_seed_7.png", "t_seed_8.png"]


def test_a_model_without_classes_takes_several_numbers(run, unconditional):  # noqa: F811
    made = run("generate", "--seed", 7, 3, "--model", unconditional)
    assert made.lines == ["image_seed_7.png", "image_seed_3.png"]


@pytest.mark.parametrize("command", ["vary", "score"])
def test_commands_with_one_seed_drop_none(run, colours, tmp_path, command):  # noqa: F811
    path = picture(tmp_path / "a.png")
    before = sorted(tmp_path.iterdir())
    for seeds in (["--seed", 1, 2], ["--seed", 1, "--seed", 2]):
        refused = run(command, path, *seeds, "--model", colours)
        assert refused.status == 2, (seeds, refused.err)
        assert refused.out == "" and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("seed", ["abc", "-1", "4294967296", "1.5", ""])
def test_a_seed_is_a_whole_number_in_range(run, colours, seed):  # noqa: F811
    refused = run("generate", "red", "-m", colours, f"--seed={seed}")
    assert refused.status == 2 and "whole number from 0 to 4294967295" in refused.err
