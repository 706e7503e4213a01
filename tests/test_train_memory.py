"""Memory of a training: what is planned is what it takes, and the advice is right."""

from __future__ import annotations

import dataclasses
import gc
import re
from pathlib import Path

import full_size
import mlx.core as mx
import pytest
from bundles import COLOURS, write_bundle
from command import run  # noqa: F401
from families import random_flow
from mlx.utils import tree_flatten
from teaching import pictures

from mlx_starflow.adapters import AdapterConfig, Base
from mlx_starflow.adapters.files import WEIGHTS
from mlx_starflow.config import BlockConfig, FlowConfig, TextConfig
from mlx_starflow.errors import OutOfMemoryError
from mlx_starflow.generation.components import Components
from mlx_starflow.generation.memory import Budget
from mlx_starflow.training.gradient import gradient
from mlx_starflow.training.memory import activation_bytes, plan_training, trained_numbers
from mlx_starflow.training.options import TrainOptions
from mlx_starflow.training.parameters import Trained, count
from mlx_starflow.training.run import Task, adapter_config, train

GB = 10**9
BLOCK = dict(channels=128, heads=2, kv_heads=2, head_dim=64, mlp_channels=512, final_norm=True)
FLOW = FlowConfig(
    model_type="starflow", in_channels=4, patch_size=1, grid_size=8, noise_std=0.3,
    text_channels=16, text_length=8, sos=True, scale="softplus", soft_clip=4.0,
    blocks=(BlockConfig(layers=1, flip=True, **BLOCK),
            BlockConfig(layers=10, conditioned=True, **BLOCK)),
)  # fmt: skip


def peak(checkpoint: bool, batch: int = 4) -> int:
    """Bytes that a gradient takes beside the weights."""
    trained = Trained(random_flow(FLOW), AdapterConfig(Base("x", "y"), rank=4))
    arrays = trained.initial(0)
    x = mx.random.normal((batch, 8, 8, 4), key=mx.random.key(1))
    context = mx.random.normal((batch, 8, 16), key=mx.random.key(2))
    mx.eval(x, context)
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    gradient(trained, arrays, x, context, checkpoint)
    return mx.get_peak_memory() - before


def test_checkpointing_saves_what_it_is_said_to():
    """Peak memory of both, against the estimates, which may be too high but not too low."""
    whole, layers = peak(False), peak(True)
    assert layers < whole / 3
    for checkpoint, measured in ((False, whole), (True, layers)):
        planned = activation_bytes(FLOW, 64, 4, checkpoint)
        assert 0.9 * measured < planned < 1.5 * measured, (checkpoint, measured, planned)


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_trained_numbers_are_counted(colours, kind):
    components = Components(colours, "x")
    config = AdapterConfig(components.base, kind, rank=3)
    assert trained_numbers(components, config) == count(Trained(components.flow, config).initial(0))


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The released pipeline of 3.9 G parameters, in 16, 8 and 4 bits, as empty files."""
    places = {}
    for recipe in (None, 8, 4):
        places[recipe] = tmp_path_factory.mktemp("released") / "bundle"
        full_size.lay_out(places[recipe], recipe)
    return places


def plan(released, recipe, gigabytes, monkeypatch, dtype="bfloat16", **options):
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    components = Components(released[recipe], "3B", None if recipe else dtype)
    own = TrainOptions(**{"batch_size": 1, **options})
    config = AdapterConfig(components.base, own.fine_tune_type, rank=own.lora_rank)
    # What macOS recommends for one program is about three quarters.
    budget = Budget(int(0.75 * gigabytes * GB), gigabytes * GB, f"a Mac of {gigabytes} GB")
    return plan_training(components, config, own, 24, budget)


LAYERS = {"grad_checkpoint": True}
WHOLE = {"fine_tune_type": "full", "dtype": "float32"}


def test_the_released_model_on_16_32_and_64_gigabytes(released, monkeypatch):
    """LoRA with checkpointing fits in 16 GB, in 16 bits and better in 4; without checkpointing it
    takes 64 GB; whole weights take 128 GB, and are refused with what would fit."""
    assert not plan(released, 4, 16, monkeypatch, **LAYERS).warning
    assert not plan(released, None, 16, monkeypatch, **LAYERS).warning
    assert not plan(released, None, 64, monkeypatch).warning
    assert not plan(released, None, 128, monkeypatch, **WHOLE, **LAYERS).warning
    assert plan(released, None, 96, monkeypatch, **WHOLE, **LAYERS).warning
    with pytest.raises(OutOfMemoryError, match="What would fit: --grad-checkpoint"):
        plan(released, None, 32, monkeypatch)
    for gigabytes, said in ((64, "--fine-tune-type lora"), (8, "--quantize 4")):
        with pytest.raises(OutOfMemoryError, match=said):
            plan(released, None, gigabytes, monkeypatch, **WHOLE, **LAYERS)
    with pytest.raises(OutOfMemoryError, match="which this device does not have"):
        plan(released, None, 2, monkeypatch, **LAYERS)


def test_the_table_of_the_documentation(released, monkeypatch):
    """Every figure of docs/training.md, by weights and kind of training."""
    computed = {
        ("16 bits", "LoRA"): (None, {}),
        ("16 bits", "LoRA, `--grad-checkpoint`"): (None, LAYERS),
        ("8 bits", "LoRA, `--grad-checkpoint`"): (8, LAYERS),
        ("4 bits", "LoRA, `--grad-checkpoint`"): (4, LAYERS),
        ("32 bits", "all weights, `--grad-checkpoint`"): (None, WHOLE | LAYERS),
    }
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    rows = re.findall(r"\| (\d+ bits) \| (.*) \| ([\d.]+) GB \|", text)
    assert len(rows) == len(computed)
    for weights, kind, stated in rows:
        recipe, options = computed[weights, kind]
        found = plan(released, recipe, 128, monkeypatch, **options).need.total / GB
        assert found == pytest.approx(float(stated), rel=0.02), (weights, kind)


@pytest.mark.parametrize("options", [
    {}, LAYERS, {"fine_tune_type": "full"}, {"fine_tune_type": "full", **LAYERS},
], ids=["lora", "lora-layers", "full", "full-layers"])  # fmt: skip
def test_a_whole_training_takes_what_is_planned(tmp_path, options):
    flow = dataclasses.replace(FLOW, in_channels=3, text_channels=len(COLOURS) + 1, text_length=1)
    text = TextConfig("labels", 1, flow.text_channels, labels=COLOURS)
    bundle = write_bundle(tmp_path / "bundle", flow, text, "deep")
    data = pictures(tmp_path / "data", 6, 8)
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    components = Components(bundle, "x")
    own = TrainOptions(iters=2, batch_size=4, steps_per_eval=2, val_draws=1, **options)
    planned = plan_training(components, adapter_config(components, own), own, 12).need.total
    events = list(train(components, Task(data, tmp_path / "a", previews=0), own))
    measured = events[-1].summary["peak_memory_bytes"] - before
    assert 0.9 * measured < planned < 3 * measured


def test_the_command_refuses_what_does_not_fit(run, colours, tmp_path, monkeypatch):  # noqa: F811
    data = pictures(tmp_path / "data")
    tiny = Budget(8 * 10**6, 8 * 10**6, "a tiny device")
    monkeypatch.setattr("mlx_starflow.training.memory.device_budget", lambda: tiny)
    line = ("train", "--data", data, "-m", colours, "--iters", 1, "--batch-size", 32,
            "--previews", 0)  # fmt: skip
    refused = run(*line)
    assert refused.status == 1, refused.err
    assert "a tiny device has 8 MB" in refused.err and "What would fit: --grad" in refused.err
    assert not (tmp_path / "adapters" / WEIGHTS).exists()


def test_the_need_is_said_in_one_sentence(colours):
    components = Components(colours, "x")
    found = plan_training(components, AdapterConfig(components.base), TrainOptions(), 8)
    assert found.sentence.startswith("Training needs about") and found.sentence.count(". ") == 0
    held = sum(a.nbytes for _, a in tree_flatten(components.flow.parameters()))
    assert found.need.weights == held
