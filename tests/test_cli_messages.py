"""Messages of the command line: each is shown once, is short, and says what to do."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from command import run  # noqa: F401
from conftest import case_dir
from PIL import Image
from teaching import adapter
from test_cli_pictures import SIDE, picture

from mlx_starflow.bundle.vocabulary import FILE
from mlx_starflow.hub.locate import EMBEDDED
from mlx_starflow.pictures.metadata import read_metadata
from mlx_starflow.sampling import BlockReport, BlockResult

WORDS = ["a", "fox", "cat", "in", "snow", "the"]
LONG = "a fox in the snow " * 40


@pytest.fixture(scope="module")
def wordy(sentences, tmp_path_factory):
    """A text-to-image model with a list of the words it knows."""
    model = tmp_path_factory.mktemp("bundles") / "wordy"
    shutil.copytree(sentences, model)
    (model / FILE).write_text(json.dumps({"subject": ["fox", "cat"], "words": WORDS}))
    return model


@pytest.fixture
def colours(few_tokens):
    return few_tokens


@pytest.fixture
def place(tmp_path):
    picture(tmp_path / "a.png", side=32)
    Image.fromarray(np.pad(np.full((10, 10), 255, np.uint8), 11)).save(tmp_path / "m.png")
    return tmp_path


WITH_PROMPT = {
    "generate": ("generate", "PROMPT"),
    "negative": ("generate", "a fox", "--negative-prompt", "PROMPT"),
    "score": ("score", "a.png", "--prompt", "PROMPT", "--draws", 1),
    "encode": ("encode", "a.png", "--prompt", "PROMPT", "--no-check"),
    "decode": ("decode", "z.safetensors", "--prompt", "PROMPT"),
    "vary": ("vary", "a.png", "--prompt", "PROMPT"),
    "interpolate": ("interpolate", "--seed", 1, 2, "--prompt", "PROMPT", "--frames", 2),
    "edit": ("edit", "a.png", "--mask", "m.png", "--prompt", "PROMPT"),
    "compress": ("compress", "a.png", "--prompt", "PROMPT", "--no-check"),
}


@pytest.mark.parametrize("command", WITH_PROMPT)
def test_every_command_says_what_it_cannot_read_of_a_prompt(run, wordy, place, command):  # noqa: F811
    if command == "decode":
        run("encode", "a.png", "--no-check", "-o", "z.safetensors", "--model", wordy)
    words = [f"foxs \U0001f98a {LONG}" if w == "PROMPT" else w for w in WITH_PROMPT[command]]
    outcome = run(*words, "--model", wordy)
    for told in (
        "'foxs' (nearest: 'fox')",
        "'\U0001f98a' (nearest: 'fox')",
        "longer than the 12 tokens this model reads",
    ):
        assert outcome.err.count(told) == 1, outcome.err
    assert len(max(outcome.err.splitlines(), key=len)) < 250


# Silence and warnings are the same code for all commands: by default three of them.
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=() if c in ("generate", "score", "edit") else pytest.mark.slow)
        for c in WITH_PROMPT
    ],
)
def test_a_quiet_command_and_known_words_give_no_warning(run, wordy, place, command):  # noqa: F811
    if command == "decode":
        run("encode", "a.png", "--no-check", "-o", "z.safetensors", "--model", wordy)
    words = [f"foxs \U0001f98a {LONG}" if w == "PROMPT" else w for w in WITH_PROMPT[command]]
    quiet = run(*words, "--model", wordy, "--quiet")
    assert quiet.status == 0 and quiet.err == "", quiet.err
    known = [("a fox in snow" if w == "PROMPT" else w) for w in WITH_PROMPT[command]]
    assert "Warning" not in run(*known, "--model", wordy).err


@pytest.mark.parametrize("command", ["generate", "negative", "encode"])
def test_characters_that_the_text_encoder_does_not_know(run, sentences, place, command):  # noqa: F811
    """A model without a list of its words: what its tokenizer has no token for is named."""
    words = ["a \U0001f98a in snow" if w == "PROMPT" else w for w in WITH_PROMPT[command]]
    outcome = run(*words, "--model", sentences)
    assert outcome.status == 0
    assert outcome.err.count("The text encoder does not know '\U0001f98a'") == 1, outcome.err
    known = ["a fox in snow" if w == "PROMPT" else w for w in WITH_PROMPT[command]]
    assert "Warning" not in run(*known, "--model", sentences).err


def test_the_seed_drawn_at_random_is_shown(run, colours):  # noqa: F811
    made = run("generate", "red", "-m", colours)
    seed = read_metadata(made.lines[0])["seed"]
    assert made.err == f"Random seed: {seed}.\n"
    assert run("generate", "red", "-m", colours, "--seed", 1).err == ""
    assert run("generate", "-C", made.lines[0]).err == ""
    several = run("generate", "red", "-m", colours, "--auto-seeds", 2)
    seeds = [str(read_metadata(p)["seed"]) for p in several.lines]
    assert several.err == f"Random seeds: {', '.join(seeds)}.\n"


def test_an_interpolation_that_did_not_converge_says_so(run, colours, monkeypatch):  # noqa: F811
    command = ("interpolate", "--seed", 1, 2, "--prompt", "red", "--frames", 3, "-m", colours)
    assert "converged" not in run(*command).err
    report = BlockReport(0, "auto", 4, 4, 1, 1, residual=0.25, converged=False)

    def steps(flow, z, context, options):
        yield BlockResult(0, z, report)

    monkeypatch.setattr("mlx_starflow.editing.interpolate.invert_steps", steps)
    [line] = run(*command).err.splitlines()
    assert line.startswith("Warning: 3 of 3 pictures not converged: the largest residual is 0.25")


def test_not_converged_is_one_line(run, colours):  # noqa: F811
    made = run("generate", "red", "-m", colours, "--seed", 1, "--sampler", "sliding", "--steps", 1,
               "--json")  # fmt: skip
    [image] = json.loads(made.out)["images"]
    assert not image["converged"]
    [line] = made.err.splitlines()
    assert "not converged" in line and f"{image['residual']:.2g}" in line and "--steps" in line
    two = run(
        "generate", "red", "-m", colours, "--seed", 1, 2, "--sampler", "sliding", "--steps", 1
    )
    assert two.err.count("\n") == 1 and "2 of 2 pictures not converged" in two.err


def test_one_picture_is_a_picture(run, place, colours):  # noqa: F811
    (place / "data").mkdir()
    for name in ("0", "1"):
        picture(place / "data" / f"{name}.png", int(name), side=12)
    few = run("watch", "fit", "data/0.png", "--fit", "crop", "-m", colours)
    taught = run("train", "--data", "data", "--prompt", "red", "--iters", 1, "--batch-size", 1,
                 "--steps-per-eval", 1, "-m", colours)  # fmt: skip
    assert few.status == 2 and "only 1 picture;" in few.err, few.err
    assert taught.status == 0 and "1 picture for training" in taught.err, taught.err
    assert not re.search(r"\b1 \w+s\b", few.err + taught.err)


@pytest.mark.parametrize("command", ["watch fit", "fuse", "train"])
def test_unknown_words_of_other_commands(run, wordy, place, command):  # noqa: F811
    told = "'foxs' (nearest: 'fox')"
    if command == "watch fit":
        (place / "in").mkdir()
        for i in range(20):
            picture(place / "in" / f"{i}.png", i, side=32)
        made = run("watch", "fit", "in", "--prompt", "a foxs", "--draws", 1, "-m", wordy)
    elif command == "fuse":
        adapter(wordy, place / "style")
        made = run("fuse", "--adapter-path", "style", "--prompt", "a foxs", "--samples", 2,
                   "-m", wordy)  # fmt: skip
    else:
        (place / "data").mkdir()
        for i in range(2):
            picture(place / "data" / f"{i}.png", i, side=32)
        made = run("train", "--data", "data", "--prompt", "a foxs in snow", "--iters", 1,
                   "--batch-size", 1, "-m", wordy)  # fmt: skip
        told = "has never seen: foxs."
    assert made.status == 0 and made.err.count(told) == 1, made.err


@pytest.mark.parametrize(
    "line", ["generate a red fox -m {0}", "generate --prompt a red fox -m {0}",
             "vary a.png --prompt a red fox -m {0}", "edit a.png --mask m.png --prompt a red fox"],
)  # fmt: skip
def test_a_prompt_without_quotes_gets_a_hint(run, place, colours, line):  # noqa: F811
    refused = run(*line.format(colours).split())
    assert refused.status == 2 and 'in quotes: "a red fox"' in refused.err


@pytest.mark.parametrize("command", ["score", "compress", "watch fit"])
def test_words_of_a_prompt_taken_for_pictures_get_a_hint(run, place, colours, command):  # noqa: F811
    words = (*command.split(), "a.png", "--prompt", "a", "red", "fox")
    refused = run(*words, "-m", colours)
    assert refused.status == 2 and 'in quotes: --prompt "a red fox"' in refused.err


def test_options_are_called_as_they_were_given(run, place, colours):  # noqa: F811
    for line, says in (
        ("generate red --steps 0", "--steps is 0; expected a whole number of 1 or more"),
        ("generate red --attention-temperature 0", "--attention-temperature is 0"),
        ("generate red --noise-std=-1", "--noise-std is -1"),
        ("generate red --aspect-ratio any", "--aspect-ratio is 'any'; this model makes 1:1"),
        ("generate red --width 100 --height 7", "no picture of width 100, height 7"),
        ("generate red --seed 1 --auto-seeds 2", "give --seed or --auto-seeds"),
        ("decode nothere", "nothere: there is no such file"),
        ("train --data . --lora-rank 0", "--lora-rank is 0; expected 1 or more"),
        ("train --data . --batch-size 0", "--batch-size is 0"),
        ("train --data . --iters 0", "--iters is 0"),
        ("compress a.png --fit crop --step 0", "--step is 0"),
        ("interpolate --seed 1 2 --prompt red --fps 0 --animation x.gif", "--fps is 0"),
    ):
        refused = run(*line.split(), "-m", colours)
        assert refused.status == 2 and says in refused.err, refused.err
        assert "_" not in re.sub(r"\S*/\S*", "", refused.err)


@pytest.mark.parametrize(
    "line", ["--sampler", "--aspect-ratio", "--model", "--guide", "--denoiser", "--output"]
)
def test_an_empty_value_is_not_the_default(run, colours, line):  # noqa: F811
    model = [] if line == "--model" else ["--model", colours]
    refused = run("generate", "red", *model, f"{line}=")
    assert refused.status == 2 and refused.out == "", refused.err


@pytest.mark.parametrize(
    "flag", ["--attention-temperature", "--tolerance", "--steps", "--block-size", "--num-images",
             "--auto-seeds", "--windows"],
)  # fmt: skip
def test_zero_is_not_the_default(run, colours, flag):  # noqa: F811
    refused = run("generate", "red", "--model", colours, flag, "0")
    assert refused.status == 2 and refused.out == "", refused.err


def test_zero_that_means_something_is_honoured(run, colours):  # noqa: F811
    made = run("generate", "red", "-m", colours, "--seed", 0, "--guidance", 0, "--noise-std", 0)
    settings = read_metadata(made.lines[0])
    assert (settings["seed"], settings["guidance"], settings["noise_std"]) == (0, 0, 0)


def test_the_library_refuses_zero_and_empty_too(colours):
    import mlx_starflow as sf

    with sf.load(colours) as pipe:
        for option in ({"sampler": ""}, {"steps": 0}, {"attention_temperature": 0},
                       {"aspect_ratio": ""}, {"denoiser": ""}, {"guide": ""}):  # fmt: skip
            with pytest.raises(sf.StarflowError):
                pipe.generate("red", seed=1, **option)
        with pytest.raises(sf.StarflowError, match="no option 'foo'"):
            pipe.generate("red", foo=1)


def test_a_mask_over_everything_says_so(run, colours, tmp_path):  # noqa: F811
    path = picture(tmp_path / "a.png")
    Image.new("L", (SIDE, SIDE), 255).save(tmp_path / "m.png")
    made = run("edit", path, "--mask", "m.png", "--prompt", "red", "-m", colours)
    assert "covers the whole picture" in made.err and " 0 " not in made.err


def test_the_embedded_model_is_introduced_once_and_after_success(
    run, colours, monkeypatch, tmp_path  # noqa: F811
):  # fmt: skip
    model = tmp_path / "model"
    shutil.copytree(colours, model)
    (model / FILE).write_text(json.dumps({"words": ["red"]}))
    monkeypatch.setitem(EMBEDDED, "default", model)
    monkeypatch.setenv("MLX_STARFLOW_CACHE", str(tmp_path / "cache"))
    failed = run("generate", "no such colour", "--seed", 1)
    assert failed.status == 2 and "embedded model" not in failed.err
    first = run("generate", "red", "--seed", 1)
    assert first.err.count("\n") == 1 and "embedded model" in first.err and len(first.err) < 160
    assert run("generate", "red", "--seed", 1).err == ""


def test_no_help_is_garbled(run):  # noqa: F811
    from test_readme import commands

    for name in commands():
        shown = run(name, "--help")
        assert shown.status == 0 and "\\b" not in shown.out and "\b" not in shown.out
        for line in re.findall(r"^ *(mlx-starflow .*)", shown.out, re.MULTILINE):
            assert line.count("mlx-starflow ") == 1  # examples are not run together


def test_convert_says_what_it_wrote_and_what_it_did_not(run):  # noqa: F811
    flow = case_dir("t2i_tiny")
    made = run("convert", flow / "checkpoint.pth", "--config", flow / "config.yaml", "-o", "model")
    assert made.status == 0, made.err
    assert made.out.rstrip().endswith("(flow)")
    assert "not in the bundle: VAE; stabilityai/sd-vae-ft-ema" in made.err
    assert "not in the bundle: text encoder; google/flan-t5-xl" in made.err
