"""Commands with ``--split tensor``: what they write is what one process writes."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image
from ranked import COMMAND, on_ranks
from teaching import adapter, pictures
from test_ranks import alone, difference  # noqa: F401
from test_ranks_split import PROGRAM

from mlx_starflow.adapters.files import WEIGHTS
from mlx_starflow.generation.components import Components
from mlx_starflow.training.options import TrainOptions
from mlx_starflow.training.run import Task, train

EXACT = 1e-5
KEYS = ("attention.q", "attention.v", "attention.proj", "mlp.up", "mlp.down", "proj_out")
STEPS = ("--iters", 4, "--steps-per-eval", 4, "--caption-dropout", 0.3, "--seed", 3,
         "--lora-rank", 3, "--max-grad-norm", 0.5, "--warmup", 0,
         "--learning-rate", 0.001)  # fmt: skip


def far(one: Path, other: Path) -> float:
    """The largest difference of the arrays in two files, against the largest number."""
    a, b = mx.load(str(one)), mx.load(str(other))
    assert set(a) == set(b)
    return max((mx.abs(a[k] - b[k]).max() / mx.maximum(1.0, mx.abs(a[k]).max())).item() for k in a)


def curve(folder: Path) -> np.ndarray:
    """The loss curve of a training: training and held-out bits per dimension."""
    return np.genfromtxt(folder / "loss.csv", delimiter=",", skip_header=1)


def same_training(one: Path, other: Path) -> None:
    """States, saved adapters and loss curves are equal."""
    assert difference(one, other) < EXACT
    assert far(one / WEIGHTS, other / WEIGHTS) < EXACT
    np.testing.assert_allclose(curve(one), curve(other), rtol=EXACT, atol=EXACT)
    assert (one / "adapter_config.json").read_text() == (other / "adapter_config.json").read_text()
    assert {p.name for p in one.iterdir()} == {p.name for p in other.iterdir()}


def trained(call, bundle: Path, folder: Path, name: str, ranks: int | None, *more) -> Path:
    """A training in one process, by ``call``, or in shares on several ranks."""
    place = folder / name
    line = ["train", "--data", folder / "pictures", "-m", bundle, "--adapter-path", place]
    line += [*STEPS, *more]
    if ranks is None:
        call(*line, cwd=folder)
    else:
        on_ranks(ranks, *COMMAND, *line, "--split", "tensor")
    return place


def test_training_in_shares(alone, many_heads, tmp_path):  # noqa: F811
    """The adapter of two ranks is that of one process."""
    pictures(tmp_path / "pictures", 6)
    more = ("--batch-size", 3, "--previews", 0)
    one = trained(alone, many_heads, tmp_path, "one", None, *more)
    two = trained(alone, many_heads, tmp_path, "two", 2, *more)
    same_training(one, two)
    found = mx.load(str(two / WEIGHTS))
    moved = [mx.abs(a).max().item() for name, a in found.items() if name.endswith("lora_b")]
    assert min(moved) > 100 * EXACT


WAYS = {
    "previews": ("--previews", 1),
    "dora": ("--fine-tune-type", "dora", "--lora-keys", ",".join(KEYS), "--lora-dropout", 0.3),
    "checkpoint": ("--grad-checkpoint", "--grad-accumulation-steps", 2, "--flip"),
    "full": ("--fine-tune-type", "full", "--ema", 0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_in_shares(alone, many_heads, tmp_path, way, ranks):  # noqa: F811
    """Also when the first half was made by one process, and the second is by another number."""
    pictures(tmp_path / "pictures", 8)
    more = ("--batch-size", 3, "--previews", 0, *WAYS[way])
    one = trained(alone, many_heads, tmp_path, "one", None, *more)
    two = trained(alone, many_heads, tmp_path, "two", ranks, *more)
    same_training(one, two)
    for preview in ("0000000.png", "0000004.png") if way == "previews" else ():
        same_picture(one / "previews" / preview, two / "previews" / preview)
    if way == "dora":
        begun = half(many_heads, tmp_path / "pictures", tmp_path / "three")
        trained(alone, many_heads, tmp_path, "three", ranks, *more, "--resume")
        assert difference(one, begun) < EXACT


def half(bundle: Path, data: Path, place: Path) -> Path:
    """The first two of four steps, in one process."""
    options = TrainOptions(
        iters=4, steps_per_eval=4, caption_dropout=0.3, seed=3, lora_rank=3, max_grad_norm=0.5,
        warmup=0, learning_rate=0.001,
        batch_size=3, fine_tune_type="dora", lora_keys=KEYS, lora_dropout=0.3,
    )  # fmt: skip
    asked = iter(range(100))
    task = Task(data, place, previews=0)
    done = list(train(Components(bundle, str(bundle)), task, options, lambda: next(asked) >= 8 + 2))
    assert done[-1].summary["iterations"] == 2
    return place


def commands(folder: Path, *lines) -> tuple[list[list[int]], list[str]]:
    """Run command lines in shares on two ranks, in this directory. Returns the numbers of all-sums
    of each, in all and in denoising, and the lines on standard output."""
    lines = [[*map(str, line), "--split", "tensor"] for line in lines]
    first, second = on_ranks(2, PROGRAM, "commands", json.dumps(lines), cwd=folder)
    found = [json.loads(end.out.splitlines()[-1])["sums"] for end in (first, second)]
    assert found[0] == found[1] and second.out.count("\n") == 1  # rank 0 alone prints
    return found[0], first.out.splitlines()[:-1]


def same_picture(one: Path, other: Path) -> None:
    """Pixels may be rounded to the neighbouring number."""
    off = np.asarray(Image.open(one)).astype(int) - np.asarray(Image.open(other))
    assert np.abs(off).max() <= 1


def test_drawing_denoising_and_encoding_in_shares(run, many_heads, tmp_path):  # noqa: F811
    in_shares(run, many_heads, tmp_path, few=True)


@pytest.mark.slow
def test_decoding_and_scoring_in_shares(run, many_heads, tmp_path):  # noqa: F811
    in_shares(run, many_heads, tmp_path, few=False)


def in_shares(run, many_heads, tmp_path, few: bool) -> None:  # noqa: F811
    """With an adapter: latents, denoised latents and noise are those of one process."""
    style = adapter(many_heads, tmp_path / "style", fine_tune_type="dora", keys=KEYS)
    model = ("-m", many_heads, "--lora", style, 0.5)
    draw = ("generate", "red", "--seed", 1, *model, "--tolerance", 1e-6)
    lines = [
        (*draw, "--denoiser", "learned", "-o", "a.png", "--save-latents", "a.safetensors"),
        ("encode", tmp_path / "a.png", *model, "--prompt", "red", "--guidance", 1, "-o",
         "z.safetensors", "--noise-seed", 4, *(["--no-check"] if few else [])),
        (*draw, "--denoiser", "score", "-o", "b.png", "--save-latents", "b.safetensors"),
        ("decode", tmp_path / "z.safetensors", *model, "-o", "c.png"),
        ("score", tmp_path / "a.png", *model, "--prompt", "red", "--json"),
    ]  # fmt: skip
    lines = lines[: 2 if few else 5]
    printed = [run(*line) for line in lines]
    assert all(done.status == 0 for done in printed), printed
    (tmp_path / "two").mkdir()
    counts, told = commands(tmp_path / "two", *lines)
    layers = 4  # each has two sums in a pass, and two in its gradient
    assert all(sums >= 2 * layers for sums, _ in counts)
    assert counts[0][1] == 2 * 1  # the learned denoiser has one layer
    for name in ("a", "z") if few else ("a", "b", "z"):
        assert far(*(tmp_path / at / f"{name}.safetensors" for at in (".", "two"))) < EXACT
    for name in ("a",) if few else ("a", "b", "c"):
        same_picture(tmp_path / f"{name}.png", tmp_path / "two" / f"{name}.png")
    if not few:
        assert counts[2][1] >= 4 * layers  # the score of the flow
        one, two = (json.loads(text)["images"][0] for text in (printed[4].lines[-1], told[-1]))
        assert two["log_p_null"] == pytest.approx(one["log_p_null"], rel=EXACT)
        assert two["prompts"][0]["log_p"] == pytest.approx(one["prompts"][0]["log_p"], rel=EXACT)
