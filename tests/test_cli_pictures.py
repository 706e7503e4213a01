"""The commands that begin with a picture: score, encode, decode, interpolate, vary, edit."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.editing.inputs import contexts_of, latents_of
from mlx_starflow.exact.scoring import ScoreOptions, score_pictures
from mlx_starflow.pictures.metadata import read_metadata

SIDE = 6  # of the pictures of the model of colours here and in other files of tests


def picture(path, seed: int = 0, side: int = SIDE, mode: str = "RGB") -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return str(path)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.fixture
def colours(few_tokens):
    return few_tokens


@pytest.fixture
def ask(run, colours, tmp_path):  # noqa: F811
    """ask("score", ...) with the tiny model of colours; --json is read."""

    def call(*arguments):
        outcome = run(*arguments, "--model", colours)
        assert outcome.status == 0, outcome.err
        if "--json" not in arguments:
            return outcome
        return json.loads(outcome.out)  # one object

    return call


# score


def test_scores_are_the_librarys(ask, colours, tmp_path):
    path = picture(tmp_path / "a.png")
    found = ask("score", path, "--prompt", "red", "--prompt", "blue", "--draws", 3, "--json")
    with sf.load(colours) as pipe:
        x = latents_of(pipe, [Image.open(path)])
        contexts = contexts_of(pipe, ["red", "blue", ""])
        [expected] = score_pictures(pipe.flow, x, contexts, ScoreOptions(draws=3))
    assert (found["noise"], found["noise_std"], found["draws"]) == ("gaussian", 0.2, 3)
    [record] = found["images"]
    rows = {r["prompt"]: r for r in record["prompts"]}
    for i, prompt in enumerate(["red", "blue"]):
        assert rows[prompt]["log_p"] == pytest.approx(expected.mean[i], abs=1e-3)
        assert rows[prompt]["posterior"] == pytest.approx(expected.posterior(2)[i], abs=1e-3)
        assert rows[prompt]["standard_error"] == pytest.approx(expected.standard_error[i], abs=1e-3)
        gain = expected.mean[i] - expected.mean[2]
        assert rows[prompt]["gain"] == pytest.approx(gain, abs=1e-3)
    assert record["prompts"][0]["log_p"] >= record["prompts"][1]["log_p"]


def test_a_folder_is_scored_and_sorted(ask, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        picture(tmp_path / "in" / f"{i}.png", i)
    Image.new("RGB", (SIDE, SIDE), "grey").save(tmp_path / "in" / "plain.png")
    found = [r["prompts"][0]["log_p"] for r in ask("score", tmp_path / "in", "--json")["images"]]
    assert len(found) == 5 and found == sorted(found, reverse=True)
    outcome = ask("score", tmp_path / "in")
    assert len(outcome.lines) == 6 and "bits/dim" in outcome.lines[0]
    assert "±" in outcome.lines[1] and "noise of standard deviation 0.2" in outcome.err


def test_the_map_is_of_the_best_prompt_and_has_a_scale(ask, tmp_path):
    path = picture(tmp_path / "a.png")
    found = ask("score", path, "--map", tmp_path / "map.png", "--json")
    assert found["maps"] == [str(tmp_path / "map.png")]
    drawn = Image.open(tmp_path / "map.png")
    assert drawn.height >= 384 and drawn.width > 2 * drawn.height


def test_pixel_models_give_bits_of_pixels(run, unconditional, tmp_path):  # noqa: F811
    path = picture(tmp_path / "a.png", side=8, mode="L")
    outcome = run("score", path, "--model", unconditional, "--json")
    record = json.loads(outcome.out)
    assert record["noise"] == "uniform"
    assert 5 < record["images"][0]["prompts"][0]["bits_per_dim"] < 20


def test_what_was_done_to_a_picture_is_said(ask, tmp_path):
    image = Image.open(picture(tmp_path / "a.png", side=20)).convert("RGBA")
    image.putpixel((3, 3), (0, 0, 0, 0))
    image.save(tmp_path / "b.png")
    outcome = ask("score", tmp_path / "b.png", "--fit", "crop")
    assert "put on a white background" in outcome.err
    assert f"from 20x20 to {SIDE}x{SIDE}" in outcome.err


# encode and decode


@pytest.mark.parametrize("options", [[], ["--prompt", "red", "--guidance", "2"]])
def test_decoding_returns_the_picture(ask, tmp_path, options):
    ask("generate", "red", "--seed", 5, "--no-denoise", "--output", tmp_path / "a.png")
    found = ask("encode", tmp_path / "a.png", *options, "--output", "z.safetensors", "--json")
    assert found["round_trip_error"] < 1e-3
    ask("decode", "z.safetensors", "--output", "again.png")
    assert np.abs(pixels(tmp_path / "again.png") - pixels(tmp_path / "a.png")).max() <= 1


def test_the_noise_goes_under_another_prompt(ask, tmp_path):
    ask("generate", "red", "--seed", 5, "--output", tmp_path / "a.png")
    ask("encode", tmp_path / "a.png", "--prompt", "red", "--output", "z.safetensors")
    again = ask("generate", "blue", "--noise", "z.safetensors", "--output", "b.png", "--json")
    assert again["images"][0]["prompt"] == "blue"
    assert np.abs(pixels(tmp_path / "b.png") - pixels(tmp_path / "a.png")).max() > 2
    ask("decode", "z.safetensors", "--prompt", "blue", "--output", "c.png")
    assert read_metadata(tmp_path / "c.png")["prompt"] == "blue"


def test_noise_can_be_added_before_encoding(ask, tmp_path):
    path = picture(tmp_path / "a.png")
    found = ask("encode", path, "--noise-seed", 3, "--output", "z.safetensors", "--json")
    assert found["noise_seed"] == 3
    arrays = mx.load("z.safetensors")
    assert arrays["noise"].shape == arrays["latents"].shape == (1, SIDE, SIDE, 3)
    ask("decode", "z.safetensors", "--output", "b.png")
    assert read_metadata(tmp_path / "b.png")["denoise"] is True


def test_encoding_never_overwrites(ask, tmp_path):
    path = picture(tmp_path / "a.png")
    for name in ("z.safetensors", "z_1.safetensors"):
        assert ask("encode", path, "--output", "z.safetensors").lines == [name]


# interpolate


def test_ends_of_an_interpolation_are_the_pictures(ask, tmp_path):
    for seed in (1, 2):
        ask("generate", "red", "--seed", seed, "--no-denoise", "--output", f"{seed}.png")
    ask("interpolate", "1.png", "2.png", "--frames", 5, "--output", "strip.png")
    strip = pixels(tmp_path / "strip.png")
    assert strip.shape == (SIDE, 5 * SIDE, 3)
    assert np.abs(strip[:, :SIDE] - pixels(tmp_path / "1.png")).max() <= 1
    assert np.abs(strip[:, -SIDE:] - pixels(tmp_path / "2.png")).max() <= 1


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_between_two_prompts(ask, tmp_path, suffix):
    made = ask(
        "interpolate", "--seed", 4, "--prompt", "red", "--prompt", "blue", "--frames", 3,
        "--animation", f"a.{suffix}", "--bounce", "--json",
    )  # fmt: skip
    assert made["paths"] == ["interpolation.png", f"a.{suffix}"]
    with Image.open(tmp_path / f"a.{suffix}") as animation:
        assert animation.n_frames == 4
    if suffix != "png":  # the strip is the same
        return
    for end, prompt in ((0, "red"), (2, "blue")):
        ask("generate", prompt, "--seed", 4, "--output", f"{prompt}.png")
        frame = pixels(tmp_path / "interpolation.png")[:, end * SIDE : (end + 1) * SIDE]
        assert np.abs(frame - pixels(tmp_path / f"{prompt}.png")).max() <= 1


# vary


def test_no_variation_is_the_picture_denoised_and_more_is_farther(ask, tmp_path):
    ask("generate", "red", "--seed", 5, "--output", "a.png")
    apart = []
    for i, strength in enumerate((0, 0.2, 1)):
        ask("vary", "a.png", "--prompt", "red", "--strength", strength, "--output", f"v{i}.png")
        apart.append(np.abs(pixels(tmp_path / f"v{i}.png") - pixels(tmp_path / "a.png")).mean())
    assert apart[0] < apart[1] < apart[2]
    assert read_metadata(tmp_path / "v1.png")["varied"] == {"source": "a.png", "strength": 0.2}


def test_a_variation_is_repeated_from_itself(ask, tmp_path):
    picture(tmp_path / "a.png")
    ask("vary", "a.png", "--prompt", "red", "--num-images", 2, "--output", "v.png")
    ask("generate", "-C", "v_seed_1.png", "--output", "again.png")
    assert np.array_equal(pixels(tmp_path / "again.png"), pixels(tmp_path / "v_seed_1.png"))


# edit


def mask(path, rows: slice, columns: slice) -> np.ndarray:
    painted = np.zeros((SIDE, SIDE), np.uint8)
    painted[rows, columns] = 255
    Image.fromarray(painted).save(path)
    return painted > 0


def test_editing_changes_the_mask_and_nothing_else(ask, tmp_path):
    picture(tmp_path / "a.png")
    new = mask(tmp_path / "m.png", slice(1, 6), slice(2, 6))
    made = ask(
        "edit", "a.png", "--mask", "m.png", "--prompt", "red", "--seed", 1, 2, "--json"
    )["images"]  # fmt: skip
    assert [m["seed"] for m in made] == [1, 2]
    assert made[0]["tokens_drawn"] == 3 * 2  # rounded outwards to tokens of 2 pixels
    one, two = (pixels(tmp_path / f"image_seed_{s}.png") for s in (1, 2))
    for changed in (one, two):
        assert np.array_equal(changed[~new], pixels(tmp_path / "a.png")[~new])
        assert np.abs(changed[new] - pixels(tmp_path / "a.png")[new]).max() > 5
    assert not np.array_equal(one, two)


def test_the_best_edit_is_the_most_probable(ask, tmp_path):
    picture(tmp_path / "a.png")
    mask(tmp_path / "m.png", slice(0, 3), slice(0, 6))
    made = ask("edit", "a.png", "--mask", "m.png", "--prompt", "red", "--best-of", 3, "--json")
    [made] = made["images"]
    assert list(made["best_of"]) == ["0", "1", "2"]
    assert made["log_p"] == max(made["best_of"].values())
    assert made["best_of"][str(made["seed"])] == made["log_p"]


# generate --best-of


def test_the_best_of_several_is_the_one_the_prompt_explains_best(ask, colours, tmp_path):
    made = ask("generate", "red", "--seed", 3, "--best-of", 3, "--json")
    [record] = made["images"]
    scores = record["best_of"]["scores"]
    assert record["best_of"]["seeds"] == [3, 4, 5]
    assert record["seed"] == 3 + int(np.argmax(scores)) and record["path"] == "image.png"
    with sf.load(colours) as pipe:
        drawn = pipe.generate("red", seed=[3, 4, 5], num_images=3)
        contexts = pipe.encode_prompts(["red", ""])
        for x, score in zip(drawn.latents, scores, strict=True):
            with_prompt, without = (
                sf.log_prob(pipe.flow, x[None], contexts[i : i + 1]).item() for i in (0, 1)
            )
            assert score == pytest.approx(with_prompt - without, abs=2e-3)
    ask("generate", "-C", "image.png", "--output", "again.png")
    assert np.array_equal(pixels(tmp_path / "again.png"), pixels(tmp_path / "image.png"))
    assert read_metadata(tmp_path / "again.png")["best_of"] == record["best_of"]


# a model with a VAE and a text encoder


def test_every_command_on_a_model_with_a_vae(run, sentences, tmp_path):  # noqa: F811
    with_model = ("--model", sentences)
    lines = {
        "generate": ("a fox in snow", "--seed", 1, "--output", "fox.png"),
        "score": ("fox.png", "--prompt", "a fox", "--prompt", "a cat", "--map", "map.png"),
        "encode": ("fox.png", "--prompt", "a fox", "--output", "z.safetensors"),
        "decode": ("z.safetensors", "--output", "d.png"),
        "vary": ("fox.png", "--prompt", "a fox", "--output", "v.png"),
        "interpolate": ("fox.png", "v.png", "--frames", 2, "--output", "i.png"),
        "edit": ("fox.png", "--mask", "m.png", "--prompt", "a cat", "--output", "e.png"),
    }
    size = 32
    Image.fromarray(np.pad(np.full((10, 10), 255, np.uint8), 11)).save(tmp_path / "m.png")
    for command, arguments in lines.items():
        outcome = run(command, *arguments, *with_model)
        assert outcome.status == 0, (command, outcome.err)
    for name in ("map.png", "d.png", "v.png", "i.png", "e.png"):
        assert min(Image.open(tmp_path / name).size) >= size


MISTAKES = {
    "no such picture": ("score none.png", 2, "no such file"),
    "a picture of another size": ("score large.png", 2, f"{SIDE}x{SIDE}"),
    "an animation": ("score moving.gif", 1, "animated"),
    "text for a picture": ("encode notes.txt -o z.safetensors", 1, "not a picture"),
    "noise as a picture": ("encode a.png -o z.png", 2, ".safetensors"),
    "a picture as noise": ("decode a.png", 1, ".safetensors"),
    "no noise": ("decode none.safetensors", 2, "no such file"),
    "one picture to interpolate": ("interpolate a.png", 2, "Expected two pictures"),
    "pictures and seeds": ("interpolate a.png a.png --seed 1", 2, "not both"),
    "nothing changes": ("interpolate --seed 1 --prompt red", 2, "all pictures are the same"),
    "an animation without suffix": ("interpolate --seed 1 2 --animation film", 2, ".gif"),
    "too many prompts": (
        "interpolate a.png a.png --prompt a --prompt b --prompt c",
        2,
        "expected at most two",
    ),
    "a strength above one": ("vary a.png --strength 2", 2, "--strength"),
    "no mask": ("edit a.png --prompt red", 2, "--mask"),
    "an empty mask": ("edit a.png --mask black.png --prompt red", 2, "empty"),
    "a mask of another size": (
        "edit a.png --mask large.png --prompt red",
        2,
        "must have the same size",
    ),
    "best of two batches": (
        "generate red --best-of 2 --num-images 2",
        2,
        "sets the number of pictures",
    ),
    "best of one": ("generate red --best-of 1", 2, "--best-of"),
    "the best without a prompt": ("generate '' --best-of 2", 2, "needs a prompt"),
    "an edit repeated": ("generate -C edited.png", 2, "made by 'edit'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake, run, colours, tmp_path):  # noqa: F811
    line, status, says = MISTAKES[mistake]
    picture(tmp_path / "a.png")
    picture(tmp_path / "large.png", side=20)
    Image.new("L", (SIDE, SIDE)).save(tmp_path / "black.png")
    (tmp_path / "notes.txt").write_text("a fox")
    frames = [Image.new("RGB", (SIDE, SIDE), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    if "edited" in line:
        mask(tmp_path / "m.png", slice(0, 4), slice(0, 4))
        run(
            "edit", "a.png", "--mask", "m.png", "--prompt", "red", "-o", "edited.png", "-m", colours
        )
    before = sorted(tmp_path.iterdir())
    words = [w.strip("'") for w in line.split()]
    outcome = run(*words, "--model", colours, "--quiet")
    assert outcome.status == status, outcome.err
    assert says in outcome.err and len(outcome.err.strip().splitlines()) == 1
    assert outcome.out == "" and sorted(tmp_path.iterdir()) == before
