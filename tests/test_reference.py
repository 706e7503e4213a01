"""The published implementations' numbers: every array of every reference case is met.

Checkpoints go through the converter, as a user's would. Cases that are not among tests/data are
checked where a shared copy of the reference data is at hand.
"""

import re
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from conftest import case_info, case_tensors
from families import set_half
from reference_cases import CLIPS, STARFLOW, TARFLOW, converted_flow

from mlx_starflow import SampleOptions, bits_per_dim, denoise, invert, invert_steps, log_prob
from mlx_starflow.exact.likelihood import normal_log_prob
from mlx_starflow.flow import Flow
from mlx_starflow.flow.grid import patchify, unpatchify
from mlx_starflow.sampling import BlockResult

STORED = {"t2i_tiny", "tarflow_vp"}  # among tests/data: whoever has the repository has them


def slow_unless_stored(names: list[str]) -> list:
    """Cases for the long tests: the others' numbers are met by the shorter tests too."""
    return [pytest.param(n, marks=() if n in STORED else pytest.mark.slow) for n in names]


TIGHT = {"t2i_tiny": 2e-5, "gqa_swiglu": 2e-5}  # where a wrong epsilon would slip through


@pytest.fixture(scope="session")
def load_case(tmp_path_factory):
    @cache
    def load(name: str) -> tuple[Flow, dict[str, np.ndarray], dict]:
        flow = converted_flow(name, tmp_path_factory.mktemp("reference") / name)
        return flow, case_tensors(name), case_info(name)

    return load


def channels_last(a: np.ndarray) -> mx.array:
    return mx.array(np.moveaxis(a, -3, -1))


def assert_met(found: mx.array, expected: np.ndarray, share: float = 1e-4) -> None:
    """Largest error at most ``share`` of the largest absolute value."""
    found = np.array(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


def assert_picture(found: mx.array, expected: np.ndarray, share: float = 1e-4) -> None:
    assert_met(found, np.moveaxis(expected, 1, -1), share)


def context_of(tensors: dict, batch: int, guidance: float) -> mx.array:
    return mx.array(tensors["text"] if guidance else tensors["text"][:batch])


@pytest.mark.parametrize("name", STARFLOW)
def test_forward(load_case, name):
    flow, tensors, info = load_case(name)
    x, context = channels_last(tensors["latent"]), context_of(tensors, info["batch"], 0)
    z, logdet = flow(x, context)
    share = TIGHT.get(name, 1e-4)
    assert_picture(z, tensors["forward.z"], share)
    means = 0.0
    for i, (_, log_scale) in enumerate(flow.blockwise(x, context)):
        if log_scale is None:
            assert not tensors[f"forward.logdet.{i}"].any()
            continue
        assert_met(log_scale, tensors[f"forward.logdet.{i}"], share)
        means += log_scale.mean().item()
    loss = 0.5 * mx.square(z).mean().item() - means
    assert loss == pytest.approx(float(tensors["forward.loss"]), abs=1e-4)
    # the same number through the likelihood
    numbers = z[0].size
    half_log_2pi = 0.5 * np.log(2 * np.pi)
    nats = -log_prob(flow, x, context).mean().item() / numbers
    assert nats == pytest.approx(float(tensors["forward.loss"]) + half_log_2pi, abs=1e-4)
    assert mx.allclose(log_prob(flow, x, context), normal_log_prob(z) + logdet)


# By default sequential everywhere; that the samplers agree is shown in test_sampling.py.
@pytest.mark.parametrize(
    ("name", "guidance", "sampler"),
    [
        *((name, 3.6, "sequential") for name in STARFLOW),
        *(
            pytest.param(*case.values, guidance, sampler, marks=case.marks)
            for case in slow_unless_stored(STARFLOW)
            for guidance, sampler in ((3.6, "auto"), (0.0, "sequential"), (0.0, "auto"))
        ),
    ],
)
def test_inverse_block_by_block(load_case, name, guidance, sampler):
    flow, tensors, info = load_case(name)
    z, context = channels_last(tensors["noise"]), context_of(tensors, info["batch"], guidance)
    tolerance = 1e-5 if sampler == "auto" else None
    options = SampleOptions(guidance=guidance, sampler=sampler, tolerance=tolerance)
    assert_picture(z, tensors[f"sequential.cfg{guidance}.0"])
    for event in invert_steps(flow, z, context, options):
        if isinstance(event, BlockResult):
            inverted = len(flow.blocks) - event.block
            assert_picture(event.x, tensors[f"sequential.cfg{guidance}.{inverted}"])
            assert event.report.converged and event.report.residual <= 1e-4


@pytest.mark.parametrize("name", slow_unless_stored(STARFLOW))
def test_published_jacobi(load_case, name):
    flow, tensors, info = load_case(name)
    z = channels_last(tensors["noise"])
    for key, expected in tensors.items():
        named = re.fullmatch(r"jacobi\.cfg([\d.]+)\.block(\d+)\.th(.+)", key)
        if named is None:
            continue
        guidance, size, threshold = float(named[1]), int(named[2]), float(named[3])
        x = invert(
            flow,
            z,
            context_of(tensors, info["batch"], guidance),
            guidance=guidance,
            sampler="jacobi",
            block_size=size,
            tolerance=threshold,
        )
        assert_picture(x, expected, 1e-4 if threshold < 1e-6 else 2e-3)


def test_attention_temperature(load_case):
    flow, tensors, _ = load_case("nosos_rope")
    x = invert(
        flow,
        channels_last(tensors["noise"]),
        mx.array(tensors["text"]),
        guidance=3.6,
        sampler="sequential",
        attention_temperature=0.8,
    )
    assert_picture(x, tensors["sequential.cfg3.6.temp0.8"])


@pytest.mark.parametrize("name", STARFLOW)
def test_denoised(load_case, name):
    flow, tensors, info = load_case(name)
    sample = channels_last(tensors[f"sequential.cfg3.6.{len(flow.blocks)}"])
    context = context_of(tensors, info["batch"], 0)
    assert flow.config.noise_std == info["noise_std"]
    assert_picture(denoise(flow, sample, context, method="score"), tensors["self_denoised"])
    if "learned_denoised" in tensors:
        assert_picture(denoise(flow, sample, context), tensors["learned_denoised"])


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("name", STARFLOW + TARFLOW + CLIPS)
def test_likelihood_in_half(load_case, name, dtype):
    """Within 2e-3 nats per dimension of float32, every picture and clip of every family."""
    flow, tensors, info = load_case(name)
    x = channels_last(tensors["latent" if "latent" in tensors else "image"])
    context = context_of(tensors, info["batch"], 0) if "text" in tensors else labels_of(tensors)
    half = Flow(flow.config)
    half.update(flow.parameters())
    set_half(half, dtype)
    change = (log_prob(half, x, context) - log_prob(flow, x, context)) / x[0].size
    assert 0 < mx.abs(change).max().item() < 2e-3


# Largest error of a latent or pixel that goes to noise and back, in deviations, by type.
IN_HALF = (STARFLOW[0], TARFLOW[0])
ROUND_TRIP = {mx.float32: 2e-5, mx.float16: 2e-2, mx.bfloat16: 0.1}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        # By default one flow with a text and one without.
        pytest.param(n, d, marks=() if n in IN_HALF else pytest.mark.slow)
        for n in STARFLOW + TARFLOW
        for d in ROUND_TRIP
    ],
)
def test_round_trip_by_type(load_case, name, dtype):
    """Every picture of every family: docs/metal.md states the errors."""
    flow, tensors, info = load_case(name)
    x = channels_last(tensors["latent" if "latent" in tensors else "image"])
    context = context_of(tensors, info["batch"], 0) if "text" in tensors else labels_of(tensors)
    typed = Flow(flow.config)
    typed.update(flow.parameters())
    set_half(typed, dtype)
    z, _ = typed(x, context)
    if "prior_var" in flow:  # the inverse begins with noise times its deviation
        tokens = patchify(z, flow.config) / mx.sqrt(flow.prior_var)
        z = unpatchify(tokens, typed.training_grid(), flow.config)
    error = invert(typed, z, context, sampler="sequential") - x
    largest = (mx.abs(error).max() / x.std()).item()
    assert largest < ROUND_TRIP[dtype]
    if dtype != mx.float32 and flow.config.scale != "unit":  # whose b comes out the same both ways
        assert largest > ROUND_TRIP[mx.float32]  # products are in this type indeed


def labels_of(tensors: dict) -> mx.array | None:
    return mx.array(tensors["label"].astype(np.int32)) if "label" in tensors else None


@pytest.mark.parametrize("name", TARFLOW)
def test_tarflow_forward(load_case, name):
    flow, tensors, _ = load_case(name)
    x, labels = channels_last(tensors["image"]), labels_of(tensors)
    numbers = x[0].size
    for key, context in (("forward", labels), ("forward.uncond", None)):
        z, logdet = flow(x, context)
        assert_met(patchify(z, flow.config), tensors[f"{key}.z"])
        expected = tensors[f"{key}.logdet"]
        assert np.abs(np.array(logdet) / numbers - expected).max() < 1e-4
    z, logdet = flow(x, labels)
    loss = 0.5 * mx.square(z).mean().item() - logdet.mean().item() / numbers
    assert loss == pytest.approx(float(tensors["loss"]), abs=1e-4)
    bits = bits_per_dim(log_prob(flow, x, labels), numbers)
    assert_met(bits, tensors["bits_per_dim"])


@pytest.mark.parametrize(
    ("name", "sampler"),
    [(name, "auto") for name in TARFLOW]
    + [
        pytest.param(*case.values, "sequential", marks=case.marks)
        for case in slow_unless_stored(TARFLOW)
    ],
)
def test_tarflow_samples(load_case, name, sampler):
    flow, tensors, _ = load_case(name)
    labels = labels_of(tensors)
    z = unpatchify(mx.array(tensors["noise"]), flow.training_grid(), flow.config)
    keys = [key for key in tensors if key.startswith("sequential.")]
    assert len(keys) == 5
    for key in keys:
        guidance, _, more = re.fullmatch(r"sequential\.cfg(\d+\.\d+)(\.(.+))?", key).groups()
        options = dict(guidance=float(guidance), sampler=sampler)
        if sampler == "auto":
            options["tolerance"] = 1e-5
        if more == "annealed":
            options["annealed"] = True
        elif more == "guide_b":
            options["guide"] = "b"
        elif more:
            options["attention_temperature"] = float(more.removeprefix("temp"))
        assert_picture(invert(flow, z, labels, **options), tensors[key])
    guided = max((k for k in keys if k.count(".") == 2), key=lambda k: float(k[14:]))
    sample = channels_last(tensors[guided])
    assert_picture(denoise(flow, sample, labels), tensors["self_denoised"])
