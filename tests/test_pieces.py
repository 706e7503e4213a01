"""No evaluation is long: large work is evaluated layer by layer, and a table says how much."""

from __future__ import annotations

import mlx.core as mx
import pytest
from families import FAMILIES, example, random_flow

import mlx_starflow as sf
from mlx_starflow.benchmark.largest_evaluations import evaluations
from mlx_starflow.config import BlockConfig, FlowConfig, VAEConfig
from mlx_starflow.device import pieces
from mlx_starflow.device.pieces import LARGEST, Pieces
from mlx_starflow.exact.denoise import score
from mlx_starflow.flow import layer_operations
from mlx_starflow.text.t5 import T5Config, T5Encoder
from mlx_starflow.vae import AutoencoderKL


@pytest.fixture
def counted(monkeypatch):
    """How often something is evaluated on the way, where next to nothing is allowed at once."""
    count = [0]
    evaluate = pieces._evaluate

    def counting(arrays):
        count[0] += 1
        evaluate(arrays)

    monkeypatch.setattr(pieces, "_evaluate", counting)
    monkeypatch.setattr(pieces, "LARGEST", 1.0)
    return count


def test_work_is_evaluated_before_it_is_too_much(monkeypatch):
    done = []
    monkeypatch.setattr(pieces, "_evaluate", lambda arrays: done.append(arrays))
    meter = Pieces(10.0)
    for _ in range(6):
        meter.add(4.0, mx.zeros(1))
    assert len(done) == 3  # after every second: a third would make 12
    assert meter.waiting == 0.0
    meter.add(1.0, mx.zeros(1))
    meter.end(mx.zeros(1))
    assert len(done) == 3  # a little may wait for the next part
    meter.add(4.0, mx.zeros(1))
    meter.end(mx.zeros(1))
    assert len(done) == 4 and meter.waiting == 0.0


def test_all_long_passes_are_cut(counted):
    flow = random_flow(FAMILIES["learned_denoiser"])
    x, context = example(flow.config)
    whole = sum(b.layers for b in flow.config.blocks)
    flow(x, context)
    assert counted[0] == whole
    counted[0] = 0
    sf.invert(flow, x, context, sampler="sliding")  # whole windows and certificates
    assert counted[0] >= 2 * whole
    counted[0] = 0
    sf.denoise(flow, x, context, method="learned")
    assert counted[0] == flow.config.denoiser.layers


def test_vae_and_text_encoder_are_cut(counted):
    vae = AutoencoderKL(VAEConfig((8, 16), norm_num_groups=4, layers_per_block=1))
    vae.decode(mx.zeros((1, 4, 4, 4)))
    assert counted[0] == 5  # two residual blocks a level and one upsampling
    counted[0] = 0
    t5 = T5Encoder(T5Config(16, 8, 32, 2, 3, 50))
    t5(mx.array([[1, 2, 3]]))
    assert counted[0] == 3


def test_small_work_and_traced_work_are_not_cut(monkeypatch):
    flow = random_flow(FAMILIES["released"])
    x, context = example(flow.config)
    plain = flow(x, context)[0]
    monkeypatch.setattr(pieces, "LARGEST", 1.0)
    traced = mx.compile(lambda x, c: flow(x, c)[0])(x, context)
    assert mx.abs(traced - plain).max().item() < 1e-4
    gradient = mx.grad(lambda x: flow(x, context)[1].sum())(x)
    assert mx.isfinite(gradient).all().item()


def test_a_layer_of_the_score_is_an_evaluation(monkeypatch):
    flow = random_flow(FAMILIES["released"])
    x, context = example(flow.config, batch=1)
    evaluated, evaluate = [0], mx.eval

    def counting(*arrays):
        evaluated[0] += 1
        evaluate(*arrays)

    monkeypatch.setattr(mx, "eval", counting)
    score(flow, x, context, checkpoint=True)
    assert evaluated[0] >= 2 * sum(b.layers for b in flow.config.blocks)


def released() -> FlowConfig:
    size = dict(channels=3072, heads=48, kv_heads=48, head_dim=64, mlp_channels=12288)
    blocks = [BlockConfig(layers=n, conditioned=n == 24, **size) for n in (2, 2, 2, 2, 2, 24)]
    return FlowConfig("starflow", 4, 1, 32, tuple(blocks), 0.3, text_channels=2048, text_length=128)


def test_no_evaluation_of_the_released_model_is_long():
    table = evaluations(released(), VAEConfig((128, 256, 512, 512)), text_parameters=1.22e9)
    assert {row.work for row in table} >= {"certificate", "denoising", "text encoder", "VAE"}
    for row in table:
        assert 0 < row.largest <= LARGEST, row
        assert row.largest <= 1.001 * row.whole
    certificate = next(row for row in table if row.work == "certificate")
    assert certificate.whole > 1e13  # in one piece it would last seconds


def test_operations_of_a_layer():
    """12 C^2 parameters, twice for each place, and attention over all places."""
    block = released().blocks[-1]
    assert layer_operations(block, 2, 10) == 2 * 10 * (24 * 3072**2 + 4 * 3072 * 10)
