"""The tolerance can be reached with the arithmetic in use, without many more reads."""

import json
from functools import cache

import mlx.core as mx
import pytest
from families import FAMILIES, example, random_flow, set_half
from noise import noisy_products

import mlx_starflow as sf
from mlx_starflow import SampleOptions, invert_steps
from mlx_starflow.benchmark.prompts import PROMPTS
from mlx_starflow.sampling import BlockResult
from mlx_starflow.sampling.calibrate import reachable_tolerance
from mlx_starflow.sampling.sliding import REPAIR_WINDOW, _Walk
from mlx_starflow.sampling.tolerance import CONSTANT, word_for

PRECISIONS = {
    "float16": dict(dtype="float16"),
    "bfloat16": dict(dtype="bfloat16"),
    "8-bit": dict(quantize=8),
    "4-bit": dict(quantize=4),
}
MOST = 1.3  # times the reads of exact products


SQUARE = mx.random.normal((64, 64), key=mx.random.key(0))
PICTURE, KERNEL = SQUARE.reshape(1, 8, 8, 64), SQUARE.reshape(64, 1, 1, 64)
HEADS, PACKED = SQUARE[None, None], mx.quantize(SQUARE, 64, 8)
DISTURBED = {
    "@": lambda: SQUARE @ SQUARE,
    "matmul": lambda: mx.matmul(SQUARE, SQUARE),
    "addmm": lambda: mx.addmm(SQUARE, SQUARE, SQUARE),
    "quantized_matmul": lambda: mx.quantized_matmul(SQUARE, *PACKED, group_size=64, bits=8),
    "conv1d": lambda: mx.conv1d(PICTURE[0], KERNEL[:, 0]),
    "conv2d": lambda: mx.conv2d(PICTURE, KERNEL),
    "conv3d": lambda: mx.conv3d(PICTURE[None], KERNEL[:, None]),
    "conv_general": lambda: mx.conv_general(PICTURE, KERNEL),
    "attention": lambda: mx.fast.scaled_dot_product_attention(HEADS, HEADS, HEADS, scale=1.0),
}


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("product", DISTURBED)
def test_noise_reaches_every_kind_of_product(product, steady):
    """So does that of MLX_STARFLOW_TEST_NOISE, which disturbs all tests steadily."""
    product = DISTURBED[product]
    exact = product()
    with noisy_products(1e-3, steady=steady):
        first, again = product(), product()
    assert (mx.abs(first - exact) <= 6e-3 * mx.abs(exact)).all().item()
    assert (first != exact).mean().item() > 0.5
    assert mx.array_equal(first, again).item() is steady


def drawn(pipe, prompts: int, noise: float = 0.0) -> tuple[float, list]:
    """Reads weighted by bytes, and the reports, of the default sampler on some prompts."""
    reads, reports = 0, []
    for i in range(prompts):
        prompt = [PROMPTS[i % len(PROMPTS)]]
        context = pipe.prompt_rows(prompt).for_sampling(prompt, 2.0)
        channels = pipe.flow.config.in_channels
        z = mx.random.normal((1, 16, 16, channels), key=mx.random.key(i))
        steps = invert_steps(pipe.flow, z, context, SampleOptions(guidance=2.0))
        if noise:
            with noisy_products(noise):
                events = list(steps)
        else:
            events = list(steps)
        own = [e.report for e in events if isinstance(e, BlockResult)]
        reads += sum(r.bytes_read for r in own)
        reports += own
    return reads, reports


@pytest.fixture(scope="module")
def exact():
    with sf.load(dtype="float32") as pipe:
        yield pipe


@pytest.fixture(scope="module")
def drawn_exactly(exact):
    """What ``drawn`` gives with exact products, computed once."""
    return cache(lambda prompts: drawn(exact, prompts))


@pytest.mark.parametrize(
    ("prompts", "noise"),
    [
        (1, 1e-6),
        *(pytest.param(n, noise, marks=pytest.mark.slow) for n in (1, 32) for noise in (2e-7, 1e-6)
          if (n, noise) != (1, 1e-6)),
    ],
)  # fmt: skip
def test_products_rounded_otherwise_cost_no_more_reads(exact, drawn_exactly, prompts, noise):
    reads, reports = drawn_exactly(prompts)
    noisy, noisy_reports = drawn(exact, prompts, noise)
    assert all(r.converged for r in reports + noisy_reports)
    assert noisy <= MOST * reads
    assert all(r.accuracy in ("tolerance", "rounding") for r in noisy_reports)
    if noise > 5e-7:  # five times what float32 products are off by
        assert any(r.accuracy == "rounding" for r in noisy_reports)


@pytest.mark.parametrize(
    ("prompts", "name"),
    [
        (1, "bfloat16"),  # the coarser of the two types of 16 bits
        *(pytest.param(1, name, marks=pytest.mark.slow) for name in ("float16", "8-bit", "4-bit")),
        *(pytest.param(32, name, marks=pytest.mark.slow) for name in PRECISIONS),
    ],
)
def test_fewer_bits_cost_no_more_reads(exact, drawn_exactly, prompts, name):
    reads, _ = drawn_exactly(prompts)
    with sf.load(**PRECISIONS[name]) as pipe:
        fewer, reports = drawn(pipe, prompts)
        share = sum(b.nbytes for b in _weights(exact)) / sum(b.nbytes for b in _weights(pipe))
    assert all(r.converged for r in reports)
    assert fewer * share <= MOST * reads


def _weights(pipe):
    from mlx.utils import tree_flatten

    return [value for _, value in tree_flatten(pipe.flow.parameters())]


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_the_floor_is_measured_and_decides_the_tolerance(dtype):
    flow = random_flow(FAMILIES["released"])
    set_half(flow, dtype)
    _, context = example(flow.config, batch=1, guided=True)
    options = SampleOptions(guidance=2.0)
    floor, promised = reachable_tolerance(flow, flow.training_grid(), 1, options, context)
    assert promised == max(2 * floor, CONSTANT[dtype])
    assert floor < 2 * CONSTANT[dtype]
    if dtype == mx.float32:
        with noisy_products(1e-4):
            noisy, promised = reachable_tolerance(flow, flow.training_grid(), 1, options, context)
        assert noisy > 5 * max(floor, 1e-7) and promised >= 2 * noisy


def test_a_tolerance_below_the_floor_is_said_in_a_word():
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config, guided=True)
    options = SampleOptions(guidance=2.0, sampler="sliding", tolerance=1e-6)
    with noisy_products(1e-4):
        events = list(invert_steps(flow, z, context, options))
    reports = [e.report for e in events if isinstance(e, BlockResult)]
    assert all(r.converged for r in reports)
    assert any(r.accuracy == "rounding" and r.floor > 1e-6 for r in reports)


def test_the_word_for_a_result():
    words = {
        word_for(1e-5, 2e-5, 0.0, 2e-5, True): "tolerance",
        word_for(3e-5, 2e-5, 2e-5, 2e-5, True): "rounding",
        word_for(5e-5, 2e-5, 2e-5, 2e-5, True): "above",
        word_for(1e-2, 2e-2, 6e-3, 5e-3, True): "rounding",  # allowed because of the floor
        word_for(1e-5, 2e-5, 0.0, 2e-5, False): "sweeps",
    }
    assert all(found == expected for found, expected in words.items())


def test_repairs_use_small_windows_and_end_when_nothing_is_gained(monkeypatch):
    """A certificate that always fails at the same place, by as much."""
    flow = sf.load().flow
    windows, run, certify = [], _Walk.run, _Walk.certify

    def noted(self, start, window):
        windows.append(window)
        yield from run(self, start, window)

    def failing(self, tolerance):
        certify(self, tolerance)
        self.floor = 0.0
        return 1.0, 0

    monkeypatch.setattr(_Walk, "run", noted)
    monkeypatch.setattr(_Walk, "certify", failing)
    z = mx.random.normal((1, 20, 20, flow.config.in_channels), key=mx.random.key(0))  # 100 tokens
    options = SampleOptions(sampler="sliding", block_size=100)
    context = mx.zeros((1, 16, 128))
    first = next(e for e in invert_steps(flow, z, context, options) if isinstance(e, BlockResult))
    assert windows == [100, REPAIR_WINDOW]  # one repair, which gained nothing
    assert not first.report.converged and first.report.accuracy == "above"
    json.dumps(first.report.to_dict())


def test_settings_and_metadata_say_what_was_promised(colours):
    with sf.load(colours) as pipe:
        data = pipe.generate("red", seed=1).metadata
        assert data["tolerance"] >= 2e-5 and data["accuracy"] == "tolerance" and data["converged"]
        again = pipe.generate("red", seed=1, tolerance=1e-3).metadata
        assert again["tolerance"] == 1e-3
