"""``mlx-starflow generate``: every flag draws, and every picture can be drawn again from itself."""

from __future__ import annotations

import inspect
import io
import json

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image
from teaching import adapter
from test_cli_pictures import SIDE, picture

from mlx_starflow.cli.flags import with_flags
from mlx_starflow.cli.generate import generate
from mlx_starflow.pictures.metadata import read_metadata

# Flag -> (model, arguments beside the prompt); the model of classes is the quickest. Those that say
# where and not what are in FILES.
REPLAYED = {
    "seed": ("classes", ["--seed", "3"]),
    "auto_seeds": ("classes", ["--auto-seeds", "1"]),
    "num_images": ("classes", ["--num-images", "3"]),
    "best_of": ("colours", ["--best-of", "3"]),
    "aspect_ratio": ("colours", ["--aspect-ratio", "16:9"]),
    "width": ("colours", ["--width", "8"]),
    "height": ("colours", ["--height", "8"]),
    "noise": ("colours", ["--noise", "noise.npy"]),
    "negative_prompt": ("colours", ["--negative-prompt", "blue"]),
    "image": ("colours", ["--image", "a.png", "0.5"]),
    "image_strength": ("colours", ["--image", "a.png", "--image-strength", "0.1"]),
    "fit": ("colours", ["--image", "large.png", "--fit", "crop"]),
    "guidance_blocks": ("classes", ["--guidance", "2", "--guidance-blocks", "deep"]),
    "vae_tiling": ("sentences", ["--vae-tiling"]),
    "open_": ("classes", ["--open"]),
    "guidance": ("colours", ["--guidance", "0.5"]),
    "sampler": ("classes", ["--sampler", "jacobi"]),
    "max_sweeps": ("colours", ["--steps", "2"]),
    "windows": ("colours", ["--windows", "4,4,4"]),
    "kv_bits": ("colours", ["--kv-bits", "8"]),
    "tolerance": ("colours", ["--tolerance", "0.1"]),
    "block_size": ("classes", ["--sampler", "jacobi", "--block-size", "4"]),
    "attention_temperature": (
        "colours",
        ["--sampler", "sequential", "--attention-temperature", "0.7"],
    ),
    "guide": ("classes", ["--guide", "b"]),
    "annealed": ("classes", ["--annealed"]),
    "denoise": ("colours", ["--no-denoise"]),
    "noise_std": ("colours", ["--noise-std", "0.1"]),
    "denoiser": ("colours", ["--denoiser", "score"]),
    "dtype": ("colours", ["--dtype", "bfloat16"]),
    "quantize": ("wide", ["--quantize", "4"]),
    "adapter_path": ("colours", ["--adapter-path", "style"]),
    "lora": ("colours", ["--lora", "style", "0.5", "--lora", "style", "0.2"]),
    "low_ram": ("classes", ["--low-ram"]),
    "cache_limit_gb": ("classes", ["--cache-limit-gb", "1"]),
    "output": ("classes", ["--output", "deep/er/picture.webp"]),
    "metadata": ("classes", ["--metadata"]),
    "grid": ("classes", ["--grid"]),
    "stepwise_image_output_dir": ("classes", ["--stepwise-image-output-dir", "steps"]),
    "save_latents": ("classes", ["--save-latents", "latents.npy"]),
    "json_": ("classes", ["--json"]),
    "quiet": ("classes", ["--quiet"]),
    "verbose": ("classes", ["--verbose"]),
    "debug": ("classes", ["--debug"]),
    "prompt": ("classes", []),
}
# Tested by themselves below, or in test_ranks.
FILES = {"prompt_option", "prompt_file", "config_from_metadata", "model", "uncertainty", "ranks",
         "hostfile", "split", "resume"}  # fmt: skip


@pytest.fixture
def colours(few_tokens):
    return few_tokens


@pytest.fixture
def model(request):
    def path(name: str):
        return request.getfixturevalue(name)

    return path


def pixels(path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


# Flags of the table that go together in one picture. Each flag alone is a slow test.
TOGETHER = [
    ("seed", "guide", "annealed", "metadata", "quiet", "low_ram", "output", "prompt"),
    ("auto_seeds", "grid", "stepwise_image_output_dir", "verbose"),
    ("num_images", "json_", "save_latents", "open_"),
    ("guidance_blocks", "block_size", "sampler", "cache_limit_gb", "debug"),
    ("best_of", "max_sweeps"),
    ("aspect_ratio", "negative_prompt", "guidance", "kv_bits"),
    ("width", "noise_std", "denoiser", "tolerance"),
    ("height", "attention_temperature", "denoise"),
    ("noise", "dtype", "windows"),
    ("image", "adapter_path"),
    ("image_strength",),
    ("fit", "lora"),
    ("vae_tiling",),
    ("quantize",),
]


def test_the_tables_have_every_flag():
    assert set(REPLAYED) | FILES == set(inspect.signature(with_flags(generate)).parameters)
    assert sorted(flag for flags in TOGETHER for flag in flags) == sorted(REPLAYED)


@pytest.mark.parametrize(
    "flags",
    [*TOGETHER, *(pytest.param((f,), marks=pytest.mark.slow)
                  for flags in TOGETHER if len(flags) > 1 for f in flags)],
    ids=" ".join,
)  # fmt: skip
def test_a_picture_is_drawn_again_from_itself(run, model, tmp_path, flags, monkeypatch):  # noqa: F811
    monkeypatch.setattr("typer.launch", lambda path: 0)
    (name,) = {REPLAYED[flag][0] for flag in flags}
    given = (REPLAYED[flag][1] for flag in flags)
    arguments = [word for words in given for word in words]
    picture(tmp_path / "a.png")
    picture(tmp_path / "large.png", side=20)
    if {"adapter_path", "lora"} & {*flags}:
        adapter(model(name), tmp_path / "style")
    np.save(tmp_path / "noise.npy", np.ones((1, SIDE, SIDE, 3), np.float32) / 2)
    prompt = "1" if name == "classes" else "red"
    first = run("generate", prompt, "--model", model(name), *arguments)
    assert first.status == 0, first.err
    made = [r["path"] for r in json.loads(first.out)["images"]] if "json_" in flags else first.lines
    for given in ("noise.npy", "a.png", "large.png"):
        (tmp_path / given).unlink()  # the picture alone must do
    again = run("generate", "-C", made[0], "--output", "again" + made[0][made[0].rindex(".") :])
    assert again.status == 0, again.err
    assert len(again.lines) == 1
    assert pixels(again.lines[0]) == pixels(made[0])
    one, two = read_metadata(made[0]), read_metadata(again.lines[0])
    for volatile in ("created_at", "seconds", "peak_memory_bytes", "blocks", "low_ram"):
        one.pop(volatile), two.pop(volatile)
    assert one == two


def test_flags_change_the_picture(run, model):  # noqa: F811
    """Otherwise the test above would compare identical pictures."""
    made = {}
    picture("a.png")
    for flag in ("guidance", "max_sweeps", "denoise", "noise_std", "attention_temperature",
                 "negative_prompt", "image", "image_strength"):  # fmt: skip
        _, arguments = REPLAYED[flag]
        out = run("generate", "red", "--model", model("colours"), "--seed", 1, *arguments)
        made[flag] = pixels(out.lines[0])
    assert len(set(made.values())) == len(made)


def test_the_command_line_beats_the_picture(run, colours):  # noqa: F811
    first = run("generate", "red", "-m", colours, "--seed", 1, "--guidance", 2, "--sampler",
                "jacobi", "--block-size", 4)  # fmt: skip
    again = run("generate", "blue", "-C", first.lines[0], "--seed", 9, "--sampler", "sequential")
    settings = read_metadata(again.lines[0])
    assert (settings["prompt"], settings["seed"], settings["sampler"]) == ("blue", 9, "sequential")
    assert (settings["guidance"], settings["block_size"]) == (2, None)


def test_the_sidecar_replays_too(run, colours):  # noqa: F811
    first = run("generate", "green", "-m", colours, "--metadata", "-o", "a.jpg")
    again = run("generate", "-C", "a.json", "-o", "b.jpg")
    assert pixels(first.lines[0]) == pixels(again.lines[0])


def test_no_metadata_leaves_none(run, colours, tmp_path):  # noqa: F811
    for suffix in ("png", "jpg", "webp"):
        run("generate", "red", "-m", colours, "--no-metadata", "-o", f"a.{suffix}")
        data = (tmp_path / f"a.{suffix}").read_bytes()
        assert b"red" not in data and b"seed" not in data
        refused = run("generate", "-C", f"a.{suffix}")
        assert refused.status == 1 and "holds no settings" in refused.err
    assert not list(tmp_path.glob("*.json"))


def test_names_never_overwrite(run, colours, tmp_path):  # noqa: F811
    command = ("generate", "red", "-m", colours, "-o", "x/fox.png", "--seed", 4)
    assert [run(*command).lines for _ in range(3)] == [
        ["x/fox.png"],
        ["x/fox_1.png"],
        ["x/fox_2.png"],
    ]
    several = run("generate", "red", "-m", colours, "-o", "x/fox.png", "--seed", 4, 5, 6)
    assert several.lines == [f"x/fox_seed_{s}.png" for s in (4, 5, 6)]
    assert not list(tmp_path.rglob("*.part"))


def test_several_seeds_are_the_pictures_of_each_alone(run, colours):  # noqa: F811
    several = run("generate", "red", "-m", colours, "--seed", 1, 2, "--seed", 3)
    alone = [run("generate", "red", "-m", colours, "--seed", s).lines[0] for s in (1, 2, 3)]
    assert [pixels(p) for p in several.lines] == [pixels(p) for p in alone]


def test_a_prompt_file(run, colours, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "prompts.txt").write_text("red\n\n  blue \n", encoding="utf-8")
    from_file = run("generate", "--prompt-file", "prompts.txt", "-m", colours, "--seed", 1)
    assert from_file.lines == ["image_prompt_1_seed_1.png", "image_prompt_2_seed_1.png"]
    assert [read_metadata(p)["prompt"] for p in from_file.lines] == ["red", "blue"]
    monkeypatch.setattr("sys.stdin", io.StringIO("red\nblue\n"))
    piped = run("generate", "--prompt-file", "-", "-m", colours, "--seed", 1)
    assert [pixels(p) for p in piped.lines] == [pixels(p) for p in from_file.lines]
    option = run("generate", "--prompt", "red", "-m", colours, "--seed", 1)
    assert pixels(option.lines[0]) == pixels(from_file.lines[0])


def test_latents_and_noise_are_exchanged_exactly(run, colours):  # noqa: F811
    first = run("generate", "red", "-m", colours, "--seed", 1, "--num-images", 2,
                "--save-latents", "a.safetensors")  # fmt: skip
    arrays = mx.load("a.safetensors")
    assert set(arrays) == {"latents", "noise", "denoised"}
    assert arrays["noise"].shape == (2, SIDE, SIDE, 3)
    again = run("generate", "red", "-m", colours, "--noise", "a.safetensors", "-o", "b.png",
                "--save-latents", "b.npy")  # fmt: skip
    assert [pixels(p) for p in again.lines[:2]] == [pixels(p) for p in first.lines[:2]]
    assert np.array_equal(np.load("b.npy"), np.array(arrays["latents"]))


def test_json_is_one_object_and_nothing_else(run, colours):  # noqa: F811
    made = run("generate", "red", "-m", colours, "--json", "--seed", 1, 2, "--grid")
    result = json.loads(made.out)
    assert [image["seed"] for image in result["images"]] == [1, 2]
    assert result["files"] == ["image_grid.png"]
    image = result["images"][0]
    assert image["residual"] < 1e-3 and image["converged"]
    assert {b["block"] for b in image["blocks"]} == {0, 1, 2}
    assert set(image["seconds"]) >= {"text", "deep block", "shallow 1", "denoise", "decode"}


def test_a_contact_sheet_and_the_steps(run, colours, tmp_path):  # noqa: F811
    made = run("generate", "red", "-m", colours, "--seed", 1, 2, 3, "--grid",
               "--stepwise-image-output-dir", "steps")  # fmt: skip
    assert Image.open("image_grid.png").size == (2 * SIDE, 2 * SIDE)
    steps = sorted(p.name for p in (tmp_path / "steps").iterdir())
    assert steps[:5] == [*(f"seed_1_step_{i}_of_4.png" for i in (1, 2, 3, 4)), "seed_1_strip.png"]
    assert pixels("steps/seed_1_step_4_of_4.png") == pixels(made.lines[0])
    assert Image.open("steps/seed_1_strip.png").size == (4 * SIDE, SIDE)


def test_messages_and_silence(run, colours):  # noqa: F811
    plain = run("generate", "red", "-m", colours, "--seed", 1)
    assert plain.err == "" and "\r" not in plain.out and "\x1b" not in plain.out
    assert "passes" in run("generate", "red", "-m", colours, "--verbose").err
    quiet = run("generate", "red", "-m", colours, "--quiet")
    assert (quiet.out, quiet.err) == ("image_2.png\n", "")


def test_a_replay_with_other_weights_says_so(run, colours, tmp_path):  # noqa: F811
    made = run("generate", "red", "-m", colours, "--metadata").lines[0]
    data = json.loads((tmp_path / made).with_suffix(".json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(data | {"weights": "0" * 16}))
    assert "other weights" in run("generate", "-C", "other.json").err
