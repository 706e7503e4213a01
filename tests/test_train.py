"""Training as a whole: it learns, stops, saves, resumes exactly, and says what was wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image
from teaching import ONE_STEP, QUICK, pictures

import mlx_starflow as sf
from mlx_starflow.adapters.files import CONFIG, WEIGHTS
from mlx_starflow.adapters.saving import write_arrays
from mlx_starflow.errors import ImageError
from mlx_starflow.generation.components import Components
from mlx_starflow.pictures.metadata import save_picture
from mlx_starflow.training import checkpoint
from mlx_starflow.training.copies import Copies
from mlx_starflow.training.data import read_examples
from mlx_starflow.training.events import Ended, Evaluated, Stepped
from mlx_starflow.training.material import batch, read_material
from mlx_starflow.training.options import TrainOptions
from mlx_starflow.training.run import Task, train

KINDS = {
    "lora": {}, "dora": {"fine_tune_type": "dora"},
    "full": {"fine_tune_type": "full", "ema": 0.9, "optimizer": "muon"},
    "parts": {"lora_keys": ("attention.q", "attention.v", "proj_in", "proj_out")},
}  # fmt: skip
PLAIN = dict(
    iters=8, batch_size=2, steps_per_eval=3, save_every=4, lora_rank=4, flip=True, shifts=1
)


def followed(bundle, data, place, stop_after=None, resume=False, load=None, **changes):
    """Events of a training; ``stop_after`` steps it is asked to stop."""
    components = Components(bundle, str(bundle), **(load or {}))
    task = Task(data, place, previews=0, resume=resume)
    events, steps = [], [0]
    options = TrainOptions(**{**PLAIN, **changes})
    for event in train(components, task, options, lambda: stop_after == steps[0]):
        steps[0] += isinstance(event, Stepped)
        events.append(event)
    return events


def finished(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def summary(events):
    return events[-1].summary if isinstance(events[-1], Ended) else None


@pytest.mark.parametrize(
    "kind", ["lora", "full", *(pytest.param(k, marks=pytest.mark.slow) for k in ("dora", "parts"))]
)
def test_going_on_is_not_stopping(colours, tmp_path, kind):
    """Weights, losses and files are bit for bit the same, wherever it was interrupted."""
    data = pictures(tmp_path / "data")
    whole = followed(colours, data, tmp_path / "whole", **KINDS[kind])
    for after in (1, 5) if kind == "lora" else (4,):
        place = tmp_path / f"after{after}"
        first = followed(colours, data, place, stop_after=after, **KINDS[kind])
        assert summary(first)["stopped"] == "interrupted"
        rest = followed(colours, data, place, resume=True, **KINDS[kind])
        assert [e for e in (*first, *rest) if isinstance(e, Stepped | Evaluated)] == [
            e for e in whole if isinstance(e, Stepped | Evaluated)
        ]
        for name in (WEIGHTS, f"0000008_{WEIGHTS}", checkpoint.STATE, "loss.csv"):
            assert (place / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        # By default every kind on one model, and every model with one kind.
        pytest.param(m, k, marks=() if m == "colours" or k == "lora" else pytest.mark.slow)
        for m in ("colours", "classes", "unconditional")
        for k in KINDS
    ],
)
def test_it_learns(request, tmp_path, model, kind):
    """Held-out bits fall below the model's own, and the adapter on disk has them."""
    bundle = request.getfixturevalue(model)
    side = Components(bundle, "x").config.image_size
    data = pictures(tmp_path / "data", 12, side, captions=model == "colours")
    if model != "colours":
        for i in range(12):
            text = str(i % 2) if model == "classes" else ""
            (data / f"{i:02d}.txt").write_text(text)
    events = followed(bundle, data, tmp_path / "a", iters=12, learning_rate=3e-3, **KINDS[kind])
    found = summary(events)
    assert found["valid_bits_per_dim"] < found["base_valid_bits_per_dim"]
    assert found["stopped"] == "iters" and found["iterations"] == 12
    with sf.load(bundle, adapters=[tmp_path / "a"]) as pipe:
        assert pipe.generate("red" if model == "colours" else None, seed=1, steps=8).images


def test_a_quantized_base_is_trained_on(wide, tmp_path):
    """QLoRA: 4-bit weights stay as they are, and the loss falls."""
    data = pictures(tmp_path / "data", 12)
    events = followed(wide, data, tmp_path / "a", load={"quantize": 4}, iters=12,
                      learning_rate=3e-3)  # fmt: skip
    found = summary(events)
    assert found["valid_bits_per_dim"] < found["base_valid_bits_per_dim"]
    refused = pytest.raises(sf.errors.UsageError, match="float32")
    with refused:
        followed(wide, data, tmp_path / "b", load={"quantize": 4}, fine_tune_type="full")


@pytest.fixture(scope="module")
def plain(colours, tmp_path_factory):
    """Pictures, and the summary of the plain training on them."""
    place = tmp_path_factory.mktemp("plain")
    data = pictures(place / "data")
    return data, summary(followed(colours, data, place / "a", load={"dtype": "float32"}))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_trained_on(colours, plain, tmp_path, dtype):
    data, full = plain
    half = summary(followed(colours, data, tmp_path / "a", load={"dtype": dtype}))
    assert half["valid_bits_per_dim"] == pytest.approx(full["valid_bits_per_dim"], abs=5e-3)


def test_checkpointing_and_accumulation_give_the_same_training(colours, plain, tmp_path):
    data, full = plain
    layers = summary(followed(colours, data, tmp_path / "b", grad_checkpoint=True))
    assert layers["valid_bits_per_dim"] == pytest.approx(full["valid_bits_per_dim"], abs=1e-6)
    more = followed(colours, data, tmp_path / "c", batch_size=1, grad_accumulation_steps=2)
    assert summary(more)["iterations"] == 8


def test_it_stops_by_itself_and_keeps_the_best(colours, tmp_path):
    """On 20 pictures and 2,000 iterations."""
    data = pictures(tmp_path / "data", 20)
    events = followed(colours, data, tmp_path / "a", iters=2000, learning_rate=4e-2,
                      steps_per_eval=5, patience=3, save_every=5)  # fmt: skip
    found = summary(events)
    assert found["stopped"] == "patience" and found["iterations"] < 2000
    evaluated = [e for e in events if isinstance(e, Evaluated)]
    best = min(evaluated, key=lambda e: e.valid.mean)
    assert best.step == found["best_iteration"] and best.is_best
    assert found["valid_bits_per_dim"] == best.valid.mean
    assert evaluated[-1].valid.mean > best.valid.mean
    kept = mx.load(str(tmp_path / "a" / WEIGHTS))
    then = mx.load(str(tmp_path / "a" / f"{best.step:07d}_{WEIGHTS}"))
    assert all((kept[n] == then[n]).all().item() for n in kept)


def test_the_command(run, colours, tmp_path):  # noqa: F811
    """JSON as the contract has it; files as mlx-lm has them; what exists is not overwritten."""
    data = pictures(tmp_path / "data")
    made = run("train", "--data", data, "-m", colours, *QUICK, "--previews", 2, "--json")
    assert made.status == 0, made.err
    about = json.loads(made.lines[-1])
    assert {"iterations", "train_bits_per_dim", "valid_bits_per_dim", "adapter_path",
            "stopped"} <= set(about)  # fmt: skip
    config = json.loads((tmp_path / "adapters" / CONFIG).read_text())
    assert config["fine_tune_type"] == "lora" and config["lora_parameters"]["rank"] == 4
    names = mx.load(str(tmp_path / "adapters" / WEIGHTS))
    assert all(n.endswith((".lora_a", ".lora_b")) for n in names)
    assert "Training needs about" in made.err and "held out" in made.err
    assert (tmp_path / "adapters/previews/0000003.png").is_file()
    assert Image.open(tmp_path / "adapters/loss.png").size == (800, 480)
    again = run("train", "--data", data, "-m", colours, *QUICK)
    assert again.status == 2 and "--resume" in again.err
    other = run("train", "--data", data, "-m", colours, *QUICK, "--seed", 5, "--resume")
    assert other.status == 2 and "other options" in other.err
    more = run("train", "--data", data, "-m", colours, *QUICK, "--adapter-path", "more",
               "--resume-adapter-file", "adapters/0000006_adapters.safetensors")  # fmt: skip
    assert more.status == 0, more.err


def test_the_yaml_file_and_flags_over_it(run, colours, tmp_path):  # noqa: F811
    pictures(tmp_path / "data")
    (tmp_path / "train.yaml").write_text(
        f"model: {colours}\ndata: data\niters: 4\nbatch-size: 2\nlearning_rate: 1e-4\n"
        "adapter_path: mine\nlora_parameters: {rank: 3, scale: 2.0, keys: [mlp.up]}\n"
    )
    made = run("train", "-c", "train.yaml", "--previews", 0, "--iters", 2, "--json")
    assert made.status == 0, made.err
    assert json.loads(made.lines[-1])["iterations"] == 2
    config = json.loads((tmp_path / "mine" / CONFIG).read_text())
    assert config["lora_parameters"]["keys"] == ["mlp.up"]
    assert config["lora_parameters"]["rank"] == 3
    for text, said in (
        ("itres: 4", "itres"),
        ("iters: many", "iters"),
        ("a: &x [1]\nb: *x", "alias"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        refused = run("train", "-c", "bad.yaml")
        assert refused.status in (1, 2) and said in refused.err


# Faults of one picture: what is done to it, and what is said.
FAULTS = {
    "missing captions": (lambda d, n: (d / f"{n}.txt").unlink(), "no caption"),
    "broken": (
        lambda d, n: (d / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n junk"),
        "not a picture in a supported format",
    ),
    "unreadable": (lambda d, n: ((d / f"{n}.png").unlink(), (d / f"{n}.png").mkdir()), ""),
    "tiny": (lambda d, n: Image.new("RGB", (4, 4)).save(d / f"{n}.png"), "smaller than half"),
    "small": (lambda d, n: Image.new("RGB", (9, 9)).save(d / f"{n}.png"), "Scaled up"),
    "huge": (lambda d, n: Image.new("1", (9000, 9000)).save(d / f"{n}.png"), "million pixels"),
    "duplicate": (lambda d, n: shutil.copy(d / "02.png", d / f"{n}.png"), "counted once"),
    "empty caption": (lambda d, n: (d / f"{n}.txt").write_text(" \n"), "Empty caption"),
    "caption of bytes": (lambda d, n: (d / f"{n}.txt").write_bytes(b"\xff\xfe"), "UTF-8"),
}  # fmt: skip
# Faults of the whole folder, what is said, and the exit status.
OF_THE_FOLDER = {
    "one picture": (lambda d: [p.unlink() for p in d.glob("0[1-9].png")], "one picture", 0),
    "no captions": (lambda d: [p.unlink() for p in d.glob("*.txt")], "--prompt", 2),
    "no pictures": (lambda d: [p.unlink() for p in d.glob("*.png")], "holds no pictures", 2),
    "no folder": (lambda d: shutil.rmtree(d), "no such folder", 2),
    "bad line": (lambda d: (d / "train.jsonl").write_text('{"image": 3}'), "line 1", 1),
    "outside": (
        lambda d: (d / "train.jsonl").write_text('{"image": "../x.png", "prompt": "red"}'),
        "outside", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "faults", [[*FAULTS], *(pytest.param([f], marks=pytest.mark.slow, id=f) for f in FAULTS)]
)
def test_faults_of_pictures_get_a_sentence(run, colours, tmp_path, faults):  # noqa: F811
    data = pictures(tmp_path / "data", 14)
    for i, fault in enumerate(faults, start=3):
        FAULTS[fault][0](data, f"{i:02d}")
    made = run("train", "--data", data, "-m", colours, *ONE_STEP)
    assert made.status == 0, made.err
    for i, fault in enumerate(faults, start=3):
        said = FAULTS[fault][1]
        assert not said or any(
            said in line and f"{i:02d}" in line for line in made.err.splitlines()
        ), (fault, made.err)


@pytest.mark.parametrize("fault", OF_THE_FOLDER)
def test_faults_of_the_folder_get_a_sentence(run, colours, tmp_path, fault):  # noqa: F811
    spoil, said, status = OF_THE_FOLDER[fault]
    data = pictures(tmp_path / "data")
    spoil(data)
    made = run("train", "--data", data, "-m", colours, *ONE_STEP)
    assert made.status == status, made.err
    assert said in made.err


def test_other_layouts(run, colours, tmp_path):  # noqa: F811
    """train.jsonl with several captions for a picture, valid.jsonl, and one prompt for all."""
    data = pictures(tmp_path / "data", captions=False)
    lines = [{"image": f"{i:02d}.png", "prompt": p} for i in range(6) for p in ("red", "blue")]
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (data / "valid.jsonl").write_text(json.dumps({"image": "07.png", "prompt": "red"}))
    made = run("train", "--data", data, "-m", colours, *ONE_STEP)
    assert made.status == 0 and "6 pictures for training and 1 held out" in made.err, made.err
    folder = pictures(tmp_path / "folder", captions=False)
    pictures(folder / "valid", 3)  # three that are in the folder too
    made = run("train", "--data", folder, "--prompt", "red", "-m", colours, *ONE_STEP,
               "--adapter-path", "b")  # fmt: skip
    assert made.status == 0 and "5 pictures for training and 3 held" in made.err, made.err


def test_a_drawn_picture_brings_its_prompt(tmp_path):
    """Its own caption file comes first, and its prompt comes before the one for all pictures."""
    data, drawn = pictures(tmp_path / "data", 1), {"generator": "mlx-starflow"}
    picture = Image.new("RGB", (16, 16))
    for name, settings in (
        ("a", drawn | {"prompt": "two red\nboats"}), ("b", drawn), ("c", drawn | {"prompt": "a"}),
    ):  # fmt: skip
        save_picture(picture, data / f"{name}.png", settings)
    (data / "c.txt").write_text("a cat")
    found, _, _ = read_examples(data, "blue")
    prompts = {e.path.stem: e.prompts for e in found}
    assert prompts["a"] == ("two red boats",) and prompts["b"] == ("blue",)
    assert prompts["c"] == ("a cat",)


def test_copies_of_pictures(tmp_path):
    """The first is the picture; the others are shifted inside their border, and do not change."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    image, digest = Image.fromarray(pixels), "0123456789abcdef" * 4
    copies = Copies(flip=True, shifts=3)
    made = [(c, np.asarray(c.of(image, digest))) for c in copies.each()]
    assert len(made) == copies.count == 8 and len({c.suffix for c, _ in made}) == 8
    assert np.array_equal(made[0][1], pixels) and np.array_equal(made[1][1], pixels[:, ::-1])
    for copy, found in made[2::2]:
        assert np.array_equal(found, copy.of(image, digest)) and found.shape == pixels.shape
        kept = {tuple(p) for p in found.reshape(-1, 3)} & {tuple(p) for p in pixels.reshape(-1, 3)}
        assert len(kept) > 0.6 * 20 * 30
        assert not np.array_equal(found, pixels)
        mirror = dataclasses.replace(copy, mirror=True).of(image, digest)
        assert np.array_equal(mirror, found[:, ::-1])
    assert list(Copies().each()) == [made[0][0]]


def test_batches_take_all_copies_of_their_pictures(colours, tmp_path):
    made = finished(
        read_material(
            Components(colours, "x"), pictures(tmp_path / "data", 4), None, "crop", 0,
            Copies(flip=True, shifts=2),
        )
    )  # fmt: skip
    assert made.valid.copies is None and made.train.copies.shape[:3] == (3, 2, len(made.train))
    exact = dataclasses.replace(made, config=dataclasses.replace(made.config, noise_std=0.0))
    seen = set()
    for step in range(60):
        for x in batch(exact, 0, step, (0, 1), 2, 0.0).x:
            apart = mx.abs(made.train.copies - x).max(axis=(3, 4, 5)).reshape(-1)
            assert apart.min().item() < 1e-6
            seen.add(apart.argmin().item())
    assert len(seen) > len(made.train)


def test_a_full_disk_leaves_the_last_file(tmp_path, monkeypatch):
    path = write_arrays(tmp_path / "a.safetensors", {"x": mx.ones((4,))}, {})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ImageError, match="No space left"):
        write_arrays(path, {"x": mx.zeros((4000,))}, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_captions_are_dropped_and_noise_is_added(colours, tmp_path):
    """A batch is told by its step: noise of its own, and captions dropped at their rate."""
    components = Components(colours, "x")
    data = pictures(tmp_path / "data")
    material = finished(read_material(components, data, None, "crop", 0, Copies()))
    null = material.rows.rows[-1]
    dropped, noise = [], []
    for step in range(300):
        found = batch(material, 0, step, (0, 1), 4, 0.1)
        dropped += [(row == null).all().item() for row in found.context]
        again = batch(material, 0, step, (0, 1), 4, 0.1)
        assert (found.x == again.x).all().item()
        clean = min(
            mx.square(found.x[0] - latent).mean().item() for latent in material.train.latents
        )
        noise.append(clean)
    assert np.mean(dropped) == pytest.approx(0.1, abs=0.03)
    assert np.sqrt(np.mean(noise)) == pytest.approx(0.2, rel=0.03)  # the model's noise_std
