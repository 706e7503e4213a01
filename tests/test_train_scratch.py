"""Models from nothing: the recipe's loss curve, and a bundle that draws."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch_curve
from command import run  # noqa: F401
from families import ROUNDING
from teaching import pictures

import mlx_starflow as sf
from mlx_starflow.adapters import AdapterConfig, Base
from mlx_starflow.config import BlockConfig, FlowConfig
from mlx_starflow.device.typed import parameters_of
from mlx_starflow.errors import StarflowError
from mlx_starflow.training.checkpoint import STATE
from mlx_starflow.training.material import Batch, Material, Part
from mlx_starflow.training.options import TrainOptions
from mlx_starflow.training.scratch import new_config, new_flow
from mlx_starflow.training.trainer import Trainer


def published(name: str) -> str:
    """A weight's name in a PyTorch checkpoint."""
    for ours, theirs in (
        (".layers.", ".attn_blocks."), (".mlp.up.", ".mlp.main.0."), (".mlp.down.", ".mlp.main.2."),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


class Given(Trainer):
    """A training whose batches are given."""

    def batch(self, number: int) -> Batch:
        x, text = torch_curve.batch(self.step)
        return Batch(mx.array(x.transpose(0, 2, 3, 1)), mx.array(text))


def like() -> FlowConfig:
    """A flow over the data of the curve, of any shape."""
    block = BlockConfig(layers=1, channels=16, heads=1, kv_heads=1, head_dim=16, mlp_channels=16)
    return FlowConfig(
        model_type="starflow", in_channels=torch_curve.CHANNELS, patch_size=2,
        grid_size=torch_curve.SIDE // 2, blocks=(block,), noise_std=torch_curve.NOISE_STD,
        text_channels=torch_curve.WIDTH, text_length=torch_curve.LENGTH, sos=True,
        scale="softplus", soft_clip=4.0,
    )  # fmt: skip


@pytest.mark.parametrize("steps", [30, pytest.param(torch_curve.STEPS, marks=pytest.mark.slow)])
def test_the_loss_curve_of_the_recipe(steps):
    """PyTorch's, step by step, from the same initial weights on the same batches."""
    stored = json.loads(torch_curve.FILE.read_text())
    config = new_config(like(), "1,2x32")
    flow = new_flow(config, 0)
    for name, array in parameters_of(flow):
        drawn = torch_curve.weight(published(name), _shape(name, array))
        flow.load_weights([(name, mx.array(drawn).reshape(array.shape))], strict=False)
    c = torch_curve
    options = TrainOptions(
        fine_tune_type="full", optimizer="muon", iters=c.STEPS, batch_size=c.BATCH,
        learning_rate=c.RATE, warmup=c.WARM_UP, final_rate=0.01, weight_decay=c.DECAY, ema=c.EMA,
    )  # fmt: skip
    latents = mx.zeros((1, c.SIDE, c.SIDE, c.CHANNELS))
    material = Material(Part((), latents, None, ()), None, None, config, ())
    trainer = Given(flow, AdapterConfig(Base("new", "0"), "full"), options, material)
    bits = np.array([trainer.update() for _ in range(steps)])
    wanted = np.array(stored["bits"])[:steps]
    assert wanted[:10].mean() - wanted[-10:].mean() > 0.2  # it learns
    assert (np.abs(bits - wanted) < 1e-5 * ROUNDING * np.abs(wanted)).all()
    if steps < c.STEPS:
        return
    found = trainer.batch(0)
    with trainer.showing():
        nats = -sf.log_prob(trainer.trained.flow, found.x, found.context).mean().item()
    last = nats / latents.size / np.log(2)
    assert last == pytest.approx(stored["averaged"], rel=1e-5 * ROUNDING)


def _shape(name: str, array: mx.array) -> tuple[int, ...]:
    """A weight's shape in a PyTorch checkpoint."""
    return (1, 1, *array.shape) if name.endswith("sos_embed") else array.shape


def test_a_model_of_ones_own(run, colours, tmp_path):  # noqa: F811
    """Trained from nothing on a folder, stored as a bundle, drawn with; --resume goes on."""
    data = pictures(tmp_path / "data")
    line = ("train", "--from-scratch", "--shape", "1,2x32", "--data", data, "-m", colours,
            "--save-path", "mine", "--batch-size", 4, "--previews", 0,
            "--steps-per-eval", 5)  # fmt: skip
    made = run(*line, "--iters", 10, "--json")
    assert made.status == 0, made.err
    about = json.loads(made.lines[-1])
    assert about["valid_bits_per_dim"] < about["base_valid_bits_per_dim"]
    drawn = run("generate", "red", "-m", "mine", "--seed", 1)
    assert drawn.status == 0, drawn.err
    with sf.load("mine") as pipe:
        assert [b.layers for b in pipe.flow_config.blocks] == [1, 2]
        assert pipe.config.name == "mine"
    assert run(*line, "--iters", 10).status == 2  # is there already


def test_going_on_from_nothing_is_not_stopping(run, sentences, tmp_path, monkeypatch):  # noqa: F811
    """With an autoencoder and a text encoder: the bundle is the same, byte for byte. Before it is
    finished, what was learned is drawn with as an adapter."""
    data = pictures(tmp_path / "data", 4, 32)
    line = ("train", "--from-scratch", "--shape", "1,1x32", "--data", data, "-m", sentences,
            "--batch-size", 2, "--previews", 0, "--steps-per-eval", 2, "--iters", 6)  # fmt: skip
    whole = run(*line, "--save-path", "whole/mine")
    assert whole.status == 0, whole.err
    with monkeypatch.context() as patch:
        patch.setattr("mlx_starflow.cli.train._stopping", lambda: pressed(after=4 + 3))
        stopped = run(*line, "--save-path", "parts/mine", "--json")
    assert stopped.status == 130 and json.loads(stopped.lines[-1])["iterations"] == 3, stopped.err
    assert "--model parts/mine --lora parts/mine/training" in stopped.err
    with sf.load("parts/mine", adapters=["parts/mine/training"]) as pipe:
        assert pipe.generate("a fox", seed=1, steps=4).images
    initial = Path("parts/mine/flow/model.safetensors").read_bytes()
    rest = run(*line, "--save-path", "parts/mine", "--resume")
    assert rest.status == 0, rest.err
    assert Path("parts/mine/flow/model.safetensors").read_bytes() != initial
    files = sorted(p for p in Path("whole").rglob("*") if p.is_file())
    assert {"flow/model.safetensors", f"training/{STATE}"} <= {
        str(p.relative_to("whole/mine")) for p in files
    }
    for file in files:
        other = Path("parts") / file.relative_to("whole")
        assert file.read_bytes() == other.read_bytes(), file


@pytest.mark.parametrize("shape", ["", "3", "1,2x33", "x64", "1,,2x64", "1,1x16", "1,1x48"])
def test_shapes_that_cannot_be(run, colours, tmp_path, shape):  # noqa: F811
    data = pictures(tmp_path / "data")
    refused = run("train", "--from-scratch", "--shape", shape, "--data", data, "-m", colours,
                  "--save-path", "mine")  # fmt: skip
    assert refused.status == 2 and "--shape" in refused.err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("bundle, shape", [("colours", "1,1x32"), ("classes", "1,1x16")])
def test_the_narrowest_shapes(request, bundle, shape):
    """Every width that is accepted trains: there are angles left for rows and columns."""
    with sf.load(request.getfixturevalue(bundle)) as pipe:
        config = new_config(pipe.flow_config, shape)
    flow, side = new_flow(config, 0), config.grid_size * config.patch_size
    context = mx.array([1]) if config.num_classes else mx.zeros((1, 1, config.text_channels))
    z, logdet = flow(mx.ones((1, side, side, config.in_channels)), context)
    assert mx.isfinite(z).all() and mx.isfinite(logdet).all()


@pytest.mark.parametrize("fault", ["no pictures", "ranks", "no memory", "Ctrl-C"])
def test_a_training_that_fails_leaves_no_bundle(run, colours, tmp_path, monkeypatch, fault):  # noqa: F811
    """What could not even begin leaves nothing: there would be nothing to resume."""
    data = pictures(tmp_path / "data")
    if fault == "no pictures":
        data = tmp_path / "empty"
        data.mkdir()
    elif fault == "ranks":
        monkeypatch.setattr("mlx_starflow.cli.train.ranks", lambda: object())
    elif fault == "no memory":
        monkeypatch.setattr(Trainer, "evaluate", out_of_memory)
    else:
        monkeypatch.setattr("mlx_starflow.cli.train._stopping", pressed)
    line = ("train", "--from-scratch", "--shape", "1,1x32", "--data", data, "-m", colours,
            "--save-path", "mine", "--batch-size", 4, "--previews", 0, "--iters", 2)  # fmt: skip
    failed = run(*line)
    assert failed.status == {"Ctrl-C": 130, "no memory": 1}.get(fault, 2), failed.err
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"data", data.name})
    if fault == "Ctrl-C":
        assert "there is nothing to resume" in failed.err
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        assert run(*line).status == 0


def out_of_memory(self) -> None:
    raise StarflowError("There is not enough memory.")


@contextlib.contextmanager
def pressed(after: int = 0):
    """Ctrl-C after so many pictures and steps; 0: from the beginning."""
    asked = iter(range(1000))
    yield lambda: next(asked) >= after
