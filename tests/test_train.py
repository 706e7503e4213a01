"""Training as a whole: it learns, stops, saves, resumes exactly, and says what was wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil

import mlx.core as mx
import pytest
from command import run  # noqa: F401
from families import ROUNDING
from mlx.utils import tree_flatten
from PIL import Image
from teaching import MOVING, ONE_STEP, QUICK, adapter, followed, pictures, summary

import mlx_starflow as sf
from mlx_starflow.adapters.changes import NAMES
from mlx_starflow.adapters.files import CONFIG, WEIGHTS
from mlx_starflow.adapters.saving import write_arrays
from mlx_starflow.errors import ImageError
from mlx_starflow.generation.components import Components
from mlx_starflow.pictures import arrays, opening
from mlx_starflow.training import checkpoint
from mlx_starflow.training.events import Evaluated, Stepped

KINDS = {
    "lora": {"ema": 0.9}, "dora": {"fine_tune_type": "dora"},
    "full": {"fine_tune_type": "full", "ema": 0.9, "optimizer": "muon"},
    "parts": {"lora_keys": ("attention.q", "attention.v", "proj_in", "proj_out")},
}  # fmt: skip


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


def test_going_on_after_any_file(colours, tmp_path, monkeypatch):
    """A training that was killed before it could write one of its files writes it when it goes
    on, whichever it was."""
    data, short = pictures(tmp_path / "data", 4), dict(iters=2, steps_per_eval=2, save_every=2)
    short |= dict(flip=False, shifts=0, val_draws=1)
    written, kill_before, plain = [], [], arrays._put

    def put(temporary, path, overwrite):
        if len(written) in kill_before:
            raise Killed
        written.append(path.name)
        return plain(temporary, path, overwrite)

    monkeypatch.setattr(arrays, "_put", put)
    followed(colours, data, tmp_path / "whole", **short)
    names, first = written.copy(), written.index(checkpoint.STATE) + 1
    assert {*names[first:]} == {WEIGHTS, f"0000002_{WEIGHTS}", checkpoint.STATE,
                                "loss.csv", "loss.png"}  # fmt: skip
    for number in range(first, len(names)):
        place = tmp_path / str(number)
        written.clear()
        kill_before.append(number)
        with pytest.raises(Killed):
            followed(colours, data, place, **short)
        kill_before.clear()
        followed(colours, data, place, resume=True, **short)
        for name in {*names}:
            same = (place / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
            assert same, (name, "after", names[number])


class Killed(BaseException):
    """The end of a process."""


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


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_base_is_trained_on(wide, tmp_path, bits):
    """QLoRA: the quantized weights stay as they are, and the loss falls."""
    data = pictures(tmp_path / "data", 12)
    components = Components(wide, "x", quantize=bits)
    before = dict(tree_flatten(components.flow.parameters()))
    found = summary(followed(components, data, tmp_path / "a", **MOVING))
    assert found["valid_bits_per_dim"] < found["base_valid_bits_per_dim"]
    after = dict(tree_flatten(components.flow.parameters()))
    assert {n for n in after if not n.endswith(NAMES)} == set(before)
    assert all(mx.array_equal(array, after[name]) for name, array in before.items())
    refused = pytest.raises(sf.errors.UsageError, match="float32")
    with refused:
        followed(wide, data, tmp_path / "b", load={"quantize": bits}, fine_tune_type="full")


@pytest.fixture(scope="module")
def plain(colours, tmp_path_factory):
    """Pictures, and the end of a training on them in float32."""
    place = tmp_path_factory.mktemp("plain")
    data = pictures(place / "data")
    return data, end_of(followed(colours, data, place / "a", load={"dtype": "float32"}, **MOVING))


def end_of(events):
    """Bits per dimension of the last step and evaluation of a training that has learned."""
    found = summary(events)
    assert found["valid_bits_per_dim"] < found["base_valid_bits_per_dim"] - 0.1
    last = {type(e): e for e in events}
    return last[Stepped].bits_per_dim, last[Evaluated].valid.mean


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_trained_on(colours, plain, tmp_path, dtype):
    data, full = plain
    half = end_of(followed(colours, data, tmp_path / "a", load={"dtype": dtype}, **MOVING))
    assert half == pytest.approx(full, abs=1e-3)


def test_checkpointing_gives_the_same_training(colours, plain, tmp_path):
    data, full = plain
    layers = end_of(followed(colours, data, tmp_path / "b", grad_checkpoint=True, **MOVING))
    assert layers == pytest.approx(full, abs=1e-6 * ROUNDING)


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


def test_an_adapter_that_is_there_is_not_overwritten(run, colours, tmp_path):  # noqa: F811
    """Nor is --resume recommended where there is nothing to resume."""
    before = (adapter(colours, tmp_path / "adapters") / WEIGHTS).read_bytes()
    line = ("train", "--data", pictures(tmp_path / "data"), "-m", colours, *ONE_STEP)
    refused, resumed = run(*line), run(*line, "--resume")
    assert refused.status == 2 and "--adapter-path" in refused.err
    assert "--resume" not in refused.err
    assert resumed.status == 2 and "no training to resume" in resumed.err
    assert (tmp_path / "adapters" / WEIGHTS).read_bytes() == before


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
    "unreadable": (lambda d, n: (d / f"{n}.png").chmod(0), "Permission denied"),
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


@pytest.fixture
def without_rights(monkeypatch):
    """Pictures that nobody may read cannot be read, even by root."""
    plain = opening.open_regular

    def as_others(path):
        if not os.stat(path).st_mode & 0o444:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return plain(path)

    monkeypatch.setattr(opening, "open_regular", as_others)


@pytest.mark.usefixtures("without_rights")
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
        assert any(said in line and f"{i:02d}" in line for line in made.err.splitlines()), (
            fault, made.err,
        )  # fmt: skip


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
