"""The loss of a training and its gradient: PyTorch's, and the same however it is computed."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
import torch_gradients
from families import CLIPS, FAMILIES, ROUNDING, example, example_clip, random_flow
from reference_cases import CLIPS as CLIP_CASES
from reference_cases import STARFLOW, TARFLOW, converted_flow

import mlx_starflow as sf
from mlx_starflow.adapters import AdapterConfig, Base
from mlx_starflow.adapters.targets import DEFAULT_KEYS
from mlx_starflow.training.gradient import gradient
from mlx_starflow.training.parameters import Trained

PARTS = ("attention.q", "attention.v", "attention.proj", "mlp.up", "proj_in", "proj_out")
BASE = Base("tiny", "0")


@pytest.mark.parametrize("name", [*STARFLOW, *TARFLOW, *CLIP_CASES])
def test_the_gradient_is_that_of_pytorch(name, tmp_path):
    """All weights, with the training's noise, and one context of the batch left out."""
    flow = converted_flow(name, tmp_path / name)
    x, context = torch_gradients.batch(name, flow.config.noise_std)
    stored = np.load(torch_gradients.GRADIENTS / f"{name}.npz")
    trained = Trained(flow, AdapterConfig(BASE, "full"))
    arrays = trained.initial(0)
    context = None if context is None else mx.array(context)
    nats, slopes = gradient(trained, arrays, mx.array(x), context)
    assert nats.item() / x.size == pytest.approx(stored["loss"].item(), rel=1e-5 * ROUNDING)
    assert set(arrays) == set(stored["names"])
    for weight, norm, wanted in zip(*(stored[key] for key in ("names", "norms", "numbers")),
                                    strict=True):  # fmt: skip
        flat = np.array(slopes[weight]).reshape(-1) / x.size
        assert np.linalg.norm(flat) == pytest.approx(norm, rel=1e-4 * ROUNDING), weight
        found = flat[torch_gradients.places(weight, flat.size)]
        assert np.abs(found - wanted).max() <= 1e-4 * ROUNDING * np.abs(wanted).max(), weight


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_gives_the_same_numbers(family, kind):
    flow, (x, context) = random_flow(FAMILIES[family]), example(FAMILIES[family])
    dropout = 0.0 if kind == "full" else 0.3
    trained = Trained(flow, AdapterConfig(BASE, kind, rank=3, dropout=dropout, keys=PARTS))
    arrays = trained.initial(0)
    if kind != "full":
        keys = mx.random.split(mx.random.key(5), len(arrays))
        arrays = {n: a + 0.05 * mx.random.normal(a.shape, key=k)
                  for (n, a), k in zip(arrays.items(), keys, strict=True)}  # fmt: skip
    key = mx.random.key(3)
    whole, slopes = gradient(trained, arrays, 0.5 * x, context, False, key)
    again, others = gradient(trained, arrays, 0.5 * x, context, True, key)
    assert whole.item() == pytest.approx(again.item(), rel=1e-6 * ROUNDING)
    for name, slope in slopes.items():
        size = mx.abs(slope).max().item()
        assert mx.abs(slope - others[name]).max().item() <= 1e-6 * ROUNDING * size, name


@pytest.mark.parametrize("family", CLIPS)
def test_checkpointing_gives_the_same_numbers_for_clips(family):
    flow, (x, context) = random_flow(FAMILIES[family]), example_clip(FAMILIES[family])
    trained = Trained(flow, AdapterConfig(BASE, "full"))
    arrays = trained.initial(0)
    whole, slopes = gradient(trained, arrays, 0.5 * x, context, False)
    again, others = gradient(trained, arrays, 0.5 * x, context, True)
    assert whole.item() == pytest.approx(again.item(), rel=1e-6 * ROUNDING)
    for name, slope in slopes.items():
        size = mx.abs(slope).max().item()
        assert mx.abs(slope - others[name]).max().item() <= 1e-6 * ROUNDING * size, name


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("keys", [DEFAULT_KEYS, PARTS], ids=["fused", "parts"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_that_begins_changes_no_bit(family, keys, kind):
    flow, (x, context) = random_flow(FAMILIES[family]), example(FAMILIES[family])
    before = flow(x, context)
    trained = Trained(flow, AdapterConfig(BASE, kind, rank=3, keys=keys))
    trained.put(trained.initial(0))
    assert all((a == b).all().item() for a, b in zip(before, flow(x, context), strict=True))
    trained.take_off()
    assert all((a == b).all().item() for a, b in zip(before, flow(x, context), strict=True))


def test_the_gradient_of_a_low_rank_product_is_that_of_the_loss():
    """Against differences of the loss along a direction."""
    config = FAMILIES["released"]
    flow, (x, context) = random_flow(config), example(config)
    trained = Trained(flow, AdapterConfig(BASE, "lora", rank=3, keys=PARTS))
    keys = iter(mx.random.split(mx.random.key(5), 1000))
    arrays = {n: a + 0.05 * mx.random.normal(a.shape, key=next(keys))
              for n, a in trained.initial(0).items()}  # fmt: skip
    _, slopes = gradient(trained, arrays, 0.5 * x, context)
    way = {n: mx.random.normal(a.shape, key=next(keys)) for n, a in arrays.items()}
    along = sum((slopes[n] * way[n]).sum().item() for n in arrays)
    step = 1e-3

    def loss(share: float) -> float:
        trained.put({n: a + share * step * way[n] for n, a in arrays.items()})
        return -sf.log_prob(flow, 0.5 * x, context).sum().item()

    assert (loss(1) - loss(-1)) / (2 * step) == pytest.approx(along, rel=1e-2)
    assert math.isfinite(along)
