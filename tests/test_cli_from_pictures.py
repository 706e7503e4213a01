"""Drawing from a picture, and drawing again what other commands have written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image
from test_cli_pictures import SIDE, mask, picture, pixels

from mlx_starflow.pictures.metadata import read_metadata


@pytest.fixture
def colours(few_tokens):
    return few_tokens


@pytest.fixture
def ask(run, colours):  # noqa: F811
    def call(*arguments):
        outcome = run(*arguments, "--model", colours)
        assert outcome.status == 0, outcome.err
        return outcome

    return call


# generate --image


def test_image_to_image_is_vary(ask, tmp_path):
    picture(tmp_path / "a.png")
    ask("vary", "a.png", "--prompt", "red", "--strength", 0.3, "--seed", 5, "-o", "v.png")
    ask("generate", "red", "--image", "a.png", 0.3, "--seed", 5, "-o", "g.png")
    assert np.array_equal(pixels("v.png"), pixels("g.png"))
    assert read_metadata("g.png")["varied"] == {"source": "a.png", "strength": 0.3}


def test_the_strength_says_how_far_it_goes(ask, tmp_path):
    ask("generate", "red", "--seed", 5, "-o", "a.png")
    apart = []
    for i, strength in enumerate((0, 0.3, 1)):
        ask("generate", "red", "--image", "a.png", strength, "--seed", 6, "-o", f"{i}.png")
        apart.append(np.abs(pixels(f"{i}.png") - pixels("a.png")).mean())
    assert apart[0] < apart[1] < apart[2]
    ask("generate", "red", "--seed", 6, "-o", "fresh.png")
    assert np.abs(pixels("2.png") - pixels("fresh.png")).max() <= 1  # 1 forgets the picture


def test_every_prompt_and_seed_starts_from_the_picture(ask, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "p.txt").write_text("red\nblue\n")
    made = ask("generate", "--prompt-file", "p.txt", "--image", "a.png", "--seed", 1, 2).lines
    assert len(made) == 4 and len({pixels(p).tobytes() for p in made}) == 4
    ask("generate", "blue", "--image", "a.png", "--seed", 2, "-o", "alone.png")
    assert np.array_equal(pixels("alone.png"), pixels(made[3]))


@pytest.mark.parametrize(
    "line", ["generate red --image a.png --width 12", "generate red --image a.png --noise n.npy",
             "generate red --image a.png --aspect-ratio random", "generate red --image-strength 1",
             "generate red --fit crop", "generate red --image a.png 0.5 --image-strength 2"],
)  # fmt: skip
def test_flags_that_do_not_go_with_a_picture(run, colours, tmp_path, line):  # noqa: F811
    picture(tmp_path / "a.png")
    np.save("n.npy", np.zeros((1, SIDE, SIDE, 3), np.float32))
    refused = run(*line.split(), "--model", colours)
    assert refused.status == 2 and "--" in refused.err


# a negative prompt, a random shape, aliases


def test_a_negative_prompt_replaces_no_prompt(run, colours):  # noqa: F811
    for flag, name in ((["--negative", "blue"], "n"), ([], "p"), (["--negative-prompt", ""], "e")):
        made = run("generate", "red", "-m", colours, "--seed", 1, *flag, "-o", f"{name}.png")
        assert made.status == 0, made.err
    assert read_metadata("n.png")["negative_prompt"] == "blue"
    assert not np.array_equal(pixels("n.png"), pixels("p.png"))
    assert np.array_equal(pixels("e.png"), pixels("p.png"))
    for more in (["--guidance", 0], []):
        model = colours if more else "classes"
        if more:
            refused = run("generate", "red", "-m", model, "--negative-prompt", "blue", *more)
            assert (
                refused.status == 2
                and "--negative-prompt has an effect with guidance only" in refused.err
            )


def test_models_of_classes_have_no_negative_prompt(run, classes):  # noqa: F811
    refused = run("generate", "1", "-m", classes, "--negative-prompt", "2")
    assert refused.status == 2 and "--negative-prompt needs a model with text" in refused.err


def test_a_random_shape_is_one_of_the_models_by_the_seed(run, colours, classes):  # noqa: F811
    made = run("generate", "red", "-m", colours, "--seed", *range(12), "--aspect-ratio", "random",
               "--sampler", "sliding")  # fmt: skip
    shapes = [read_metadata(p)["aspect_ratio"] for p in made.lines]
    assert len(set(shapes)) > 3
    again = run("generate", "red", "-m", colours, "--seed", 3, "--aspect-ratio", "random",
                "--sampler", "sliding")  # fmt: skip
    assert read_metadata(again.lines[0])["aspect_ratio"] == shapes[3]
    refused = run("generate", "1", "-m", classes, "--aspect-ratio", "random")
    assert refused.status == 2 and "1:1 only" in refused.err


def test_flags_under_the_names_of_other_programs(run, colours, tmp_path):  # noqa: F811
    made = run("generate", "red", "-m", colours, "--seed", 1, "--make-conf",
               "--mlx-cache-limit-gb", 1, "-o", "a.png")  # fmt: skip
    assert made.status == 0 and (tmp_path / "a.json").is_file()
    bare = run("generate", "--config-from-conf", "a.json", "--no-exif", "-o", "b.png")
    assert bare.status == 0 and np.array_equal(pixels("a.png"), pixels("b.png"))
    assert run("info", "b.png").status == 1


def test_tiles_are_for_models_with_an_autoencoder(run, colours):  # noqa: F811
    refused = run("generate", "red", "-m", colours, "--vae-tiling")
    assert refused.status == 2 and "--vae-tiling" in refused.err


# what is shown


def test_open_shows_what_was_made(run, colours, tmp_path, monkeypatch):  # noqa: F811
    shown = []
    monkeypatch.setattr("typer.launch", lambda path: shown.append(path) or 0)
    picture(tmp_path / "a.png")
    mask(tmp_path / "m.png", slice(0, 4), slice(0, 4))
    run("generate", "red", "-m", colours, "--seed", 1, 2, "--open")
    run("vary", "a.png", "-m", colours, "--open", "-o", "v.png")
    edit = ("edit", "a.png", "--mask", "m.png", "--prompt", "red", "--open", "-o", "e.png")
    run(*edit, "-m", colours)
    run("interpolate", "--seed", 1, 2, "--prompt", "red", "-m", colours, "--open", "--frames", 2)
    assert shown == ["image_seed_1.png", "image_seed_2.png", "v.png", "e.png", "interpolation.png"]
    monkeypatch.setattr("typer.launch", lambda path: 1)
    outcome = run("generate", "red", "-m", colours, "--seed", 1, "--open", "-o", "x.png")
    assert outcome.status == 0 and "there is no program to open" in outcome.err


# edit --box


def test_a_box_is_a_mask(ask, tmp_path):
    picture(tmp_path / "a.png")
    mask(tmp_path / "m.png", slice(0, 4), slice(2, 6))
    ask("edit", "a.png", "--mask", "m.png", "--prompt", "red", "--seed", 1, "-o", "m1.png")
    ask("edit", "a.png", "--box", "2,0,4,4", "--prompt", "red", "--seed", 1, "-o", "b1.png")
    assert np.array_equal(pixels("m1.png"), pixels("b1.png"))
    assert not np.array_equal(pixels("m1.png"), pixels("a.png"))
    ask("edit", "a.png", "--box", "2,0,2,4", "--box", "4,0,2,4", "--prompt", "red", "--seed", 1,
        "-o", "b2.png")  # fmt: skip
    assert np.array_equal(pixels("m1.png"), pixels("b2.png"))


@pytest.mark.parametrize("box", ["1,2,3", "0,0,0,4", "a,b,c,d", "8,8,8,8", "-1,0,4,4", ""])
def test_a_box_that_is_none(run, colours, tmp_path, box):  # noqa: F811
    picture(tmp_path / "a.png")
    refused = run("edit", "a.png", f"--box={box}", "--prompt", "red", "-m", colours)
    assert refused.status == 2 and "--box" in refused.err


# settings of other commands


def test_what_other_commands_made_says_how_to_make_it_again(ask, run, colours, tmp_path):  # noqa: F811
    picture(tmp_path / "a.png")
    picture(tmp_path / "my b.png", 1)
    mask(tmp_path / "m.png", slice(0, 4), slice(0, 4))
    ask("edit", "a.png", "--mask", "m.png", "--box", "0,2,4,4", "--prompt", "red", "--seed", 3,
        "-o", "edit.png")  # fmt: skip
    ask("score", "a.png", "--prompt", "red", "--prompt", "blue", "--map", "surprise.png")
    for suffix in ("webp", "gif", "png"):
        ask("interpolate", "a.png", "my b.png", "--frames", 3, "--fps", 4, "--animation",
            f"morph.{suffix}", "-o", f"strip-{suffix}.png")  # fmt: skip
    for name, line in {
        "edit.png": "edit a.png --mask m.png --box 0,2,4,4 --prompt red --seed 3",
        "surprise.png": "score a.png --prompt red --prompt blue --draws 8 --seed 0",
        **{
            f"morph.{s}": "interpolate a.png 'my b.png' --frames 3 --guidance 0.0 --fps 4.0"
            for s in ("webp", "gif", "png")
        },
    }.items():
        settings = read_metadata(name)
        assert settings["command"] == line.split()[0]
        assert run("info", name).status == 0
        refused = run("generate", "-C", name)
        assert refused.status == 2 and refused.err.count("\n") == 1
        assert line in refused.err, refused.err
        assert f"--model {colours}" in refused.err
    again = "edit a.png --mask m.png --box 0,2,4,4 --prompt red --seed 3 --guidance 1.5 -o b.png"
    ask(*again.split())
    assert np.array_equal(pixels("b.png"), pixels("edit.png"))


@pytest.mark.parametrize(
    "data",
    [
        [1], {"generator": "mlx-starflow"}, {"generator": "mlx-starflow", "command": 7, "seed": 1},
        {"generator": "mlx-starflow", "command": "video", "frames": 17, "prompt": "x"},
        {"generator": "mlx-starflow", "command": "edit", "source": {"a": [1]}, "seed": None},
        {"generator": "mlx-starflow", "command": "interpolate", "pictures": "x" * 10_000},
        {"generator": "mlx-starflow", "seed": 1e300, "prompt": 3},
    ],
)  # fmt: skip
def test_odd_settings_are_our_own_errors(run, colours, tmp_path, data):  # noqa: F811
    (tmp_path / "odd.json").write_text(json.dumps(data))
    refused = run("generate", "-C", "odd.json", "-m", colours)
    assert refused.status in (1, 2) and refused.err.count("\n") == 1
    assert "Unexpected" not in refused.err and len(refused.err) < 2000


def test_saved_latents_are_decoded_under_their_own_settings(ask, tmp_path):
    made = ask("generate", "blue", "--seed", 4, "--num-images", 2, "--guidance", 2, "--no-denoise",
               "--save-latents", "z.safetensors", "-o", "a.png").lines  # fmt: skip
    again = ask("decode", "z.safetensors", "-o", "d.png").lines
    for one, two in zip(made[:2], again, strict=True):
        assert np.array_equal(pixels(one), pixels(two))
        a, b = read_metadata(one), read_metadata(two)
        for key in ("prompt", "seed", "guidance", "denoise", "aspect_ratio", "sampler", "windows"):
            assert a[key] == b[key], key
    other = ask("decode", "z.safetensors", "--prompt", "red", "--denoise", "-o", "r.png").lines
    settings = read_metadata(other[0])
    assert (settings["prompt"], settings["denoise"], settings["guidance"]) == ("red", True, 2)


def test_a_picture_is_still_a_picture_with_settings(ask, tmp_path):
    ask("interpolate", "--seed", 1, 2, "--prompt", "red", "--frames", 3, "--animation", "m.gif")
    with Image.open(tmp_path / "m.gif") as animation:
        assert animation.n_frames == 3
