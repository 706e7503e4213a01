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
from mlx_starflow.flow.grid import Grid
from mlx_starflow.sampling.compiled import CompiledSteps
from mlx_starflow.sampling.conditional import Conditional
from mlx_starflow.sampling.options import SampleOptions
from mlx_starflow.text.t5 import T5Config, T5Encoder
from mlx_starflow.vae import AutoencoderKL
from mlx_starflow.vae.wan import AutoencoderWan
from mlx_starflow.vae.wan_blocks import Past
from mlx_starflow.vae.wan_config import WanConfig


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
    small, large = mx.zeros(1), mx.zeros(2)
    meter.add(3.0, small)
    meter.add(8.0, large)  # together 11: what came before is evaluated first
    assert [a[0] is b for a, b in zip(done[4:], (small, large), strict=True)] == [True, True]


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
    assert counted[0] == 8  # middle: 3 parts; two residual blocks a level and one upsampling
    counted[0] = 0
    vae.encode(mx.zeros((1, 8, 8, 3)))
    assert counted[0] == 6  # a residual block a level, one downsampling, and the middle
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


@pytest.fixture
def largest(monkeypatch):
    """The most operations in one evaluation of what is described; nothing is computed."""
    found, add = [0.0], Pieces.add

    def recording(self, operations, *arrays):
        waiting = self.waiting + operations
        found[0] = max(found[0], operations if waiting > self.largest else waiting)
        add(self, operations, *arrays)

    monkeypatch.setattr(pieces, "_evaluate", lambda arrays: None)
    monkeypatch.setattr(Pieces, "add", recording)
    return found


@pytest.mark.parametrize("side", [32, 48, 64])
def test_no_evaluation_of_the_usual_autoencoder_is_long(largest, side):
    """Without tiles, which larger pictures have."""
    vae = AutoencoderKL(VAEConfig((128, 256, 512, 512)))
    vae.decoder.upper(vae.decoder.middle(mx.zeros((1, side, side, 4))))
    assert LARGEST / 2 < largest[0] <= LARGEST
    largest[0] = 0.0
    vae.encoder(mx.zeros((1, 8 * side, 8 * side, 3)))
    assert LARGEST / 4 < largest[0] <= LARGEST


@pytest.mark.parametrize("begun", [False, True])
def test_no_evaluation_of_the_autoencoder_of_clips_is_long(largest, begun):
    """A latent frame of 640x368 pixels: the first, of one frame, and a later one, of four."""
    vae = AutoencoderWan(WanConfig(160, 256, 48, (0.0,) * 48, (1.0,) * 48))
    past = [Past(), Past()]
    for one in past:
        one.begun = begun
    vae.decoder.upper(vae.decoder.middle(mx.zeros((1, 1, 23, 40, 48)), Past()), past[0])
    vae.encoder(mx.zeros((1, 4 if begun else 1, 184, 320, 12)), past[1])
    assert LARGEST / 2 < largest[0] <= LARGEST


def test_a_step_that_is_too_long_is_not_compiled(monkeypatch):
    """A compiled step is one evaluation. One picture may be compiled where eight may not."""
    config = FAMILIES["released"]
    block = random_flow(config).blocks[-1]
    grid = Grid(config.grid_size, config.grid_size)
    options = SampleOptions(guidance=2.0, compile=True)

    def compiled(count: int) -> CompiledSteps | None:
        context = example(config, batch=2 * count)[1]
        return Conditional(block, grid, context, count, options, steps_of=8).compiled

    steps = compiled(1)
    work = len(block.layers) * layer_operations(block.config, 2, 8, steps.capacity)
    monkeypatch.setattr(pieces, "LARGEST", work)
    assert compiled(1) is not None and compiled(8) is None


def test_operations_of_a_layer():
    """12 C^2 parameters, twice for each place, and attention over all places."""
    block = released().blocks[-1]
    assert layer_operations(block, 2, 10) == 2 * 10 * (24 * 3072**2 + 4 * 3072 * 10)
