"""The published implementation's numbers for clips: every array of every reference case is met.

The cases are not among tests/data: they are checked where a shared copy is at hand.
"""

import re
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from clip_arrays import assert_met, channels_last
from conftest import case_info, case_tensors
from reference_cases import CLIPS, converted_flow

from mlx_starflow import SampleOptions, denoise, encode, invert, invert_steps, log_prob
from mlx_starflow.flow import Flow
from mlx_starflow.sampling import BlockResult


@pytest.fixture(scope="session")
def load_case(tmp_path_factory):
    @cache
    def load(name: str) -> tuple[Flow, dict[str, np.ndarray], dict]:
        flow = converted_flow(name, tmp_path_factory.mktemp("clips") / name)
        return flow, case_tensors(name), case_info(name)

    return load


def context_of(tensors: dict, info: dict, guidance: str | float) -> mx.array:
    return mx.array(tensors["text"] if float(guidance) else tensors["text"][: info["batch"]])


def keys_of(tensors: dict, pattern: str):
    """The arrays whose names match, with the parts of their names."""
    for key, expected in tensors.items():
        if match := re.fullmatch(pattern, key):
            yield key, expected, match


@pytest.mark.parametrize("still", ["", "still."])
@pytest.mark.parametrize("name", CLIPS)
def test_forward(load_case, name, still):
    flow, tensors, info = load_case(name)
    if f"{still}latent" not in tensors:
        pytest.skip("this case has no pictures")
    x, context = channels_last(tensors[f"{still}latent"]), context_of(tensors, info, 0)
    z, _ = flow(x, context)
    assert_met(z, tensors[f"{still}forward.z"])
    means = 0.0
    for i, (_, log_scale) in enumerate(flow.blockwise(x, context)):
        expected = tensors[f"{still}forward.logdet.{i}"]
        found = np.array(log_scale).reshape(expected.shape)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
        means += log_scale.mean().item()
    if still:
        return
    loss = float(tensors["forward.loss"])
    assert 0.5 * mx.square(z).mean().item() - means == pytest.approx(loss, abs=1e-5)
    nats = -log_prob(flow, x, context).mean().item() / z[0].size
    assert nats == pytest.approx(loss + 0.5 * np.log(2 * np.pi), abs=1e-5)


# By default all samplers on one case; that they agree is shown in test_clips.py.
@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        pytest.param(n, s, marks=() if n == CLIPS[0] or s == "sequential" else pytest.mark.slow)
        for n in CLIPS
        for s in ("sequential", "sliding", "auto")
    ],
)
def test_samples_block_by_block(load_case, name, sampler):
    flow, tensors, info = load_case(name)
    last = len(flow.blocks)
    pattern = rf"(still\.)?(given\d+|sequential)\.cfg([\d.]+)\.{last}"
    for key, _, (still, what, guidance) in (
        (k, e, m.groups()) for k, e, m in keys_of(tensors, pattern)
    ):
        z = channels_last(tensors[f"{still or ''}noise"])
        given = None if what == "sequential" else channels_last(tensors[what])
        tolerance = None if sampler == "sequential" else 1e-5
        options = SampleOptions(guidance=float(guidance), sampler=sampler, tolerance=tolerance)
        context = context_of(tensors, info, guidance)
        for event in invert_steps(flow, z, context, options, given):
            if isinstance(event, BlockResult):
                assert_met(event.x, tensors[f"{key[: -len(str(last))]}{last - event.block}"])
                assert event.report.converged
        if given is not None:
            assert mx.array_equal(event.x[:, : given.shape[1]], given)


@pytest.mark.parametrize("name", CLIPS)
def test_published_jacobi(load_case, name):
    flow, tensors, info = load_case(name)
    pattern = r"(still\.)?(given\d+\.)?(?:jacobi\.)?cfg([\d.]+)\.(?:jacobi\.)?block(\d+)\.th(.+)"
    found = 0
    for _, expected, match in keys_of(tensors, pattern):
        still, what, guidance, size, threshold = match.groups()
        x = invert(
            flow,
            channels_last(tensors[f"{still or ''}noise"]),
            context_of(tensors, info, guidance),
            given=channels_last(tensors[what[:-1]]) if what else None,
            guidance=float(guidance),
            sampler="jacobi",
            block_size=int(size),
            tolerance=float(threshold),
            max_sweeps=1000 if threshold == "1e-12" else 32,
        )
        assert_met(x, expected)
        found += 1
    assert found or name == "video_long"


def test_jacobi_sweep_by_sweep(load_case):
    flow, tensors, info = load_case("video_tiny")
    z, context = channels_last(tensors["noise"]), context_of(tensors, info, 3.5)
    for sweeps in (1, 2, 3):
        own = dict(sampler="jacobi", block_size=4, tolerance=1e-30, max_sweeps=sweeps)
        options = SampleOptions(guidance=3.5, **own)
        results = [e for e in invert_steps(flow, z, context, options) if isinstance(e, BlockResult)]
        assert_met(results[0].x, tensors[f"jacobi.cfg3.5.block4.sweeps{sweeps}.deep"])
        assert_met(results[-1].x, tensors[f"jacobi.cfg3.5.block4.sweeps{sweeps}"])


@pytest.mark.parametrize("name", ["video_i2v", "video_long"])
def test_continued(load_case, name):
    flow, tensors, info = load_case(name)
    z, (window, count) = channels_last(tensors["noise"]), info["window"]
    for key, expected, match in keys_of(
        tensors, r"continued(_given1)?\.cfg(\d\.\d)(?:\.jacobi\.block(\d+)\.th(.+))?"
    ):
        begun, guidance, size, threshold = match.groups()
        context = context_of(tensors, info, guidance)
        given = channels_last(tensors["given1"]) if begun else None
        options = dict(guidance=float(guidance), window=window, context_frames=count)
        if size:
            options |= dict(sampler="jacobi", block_size=int(size), tolerance=float(threshold))
            assert_met(invert(flow, z, context, given=given, **options), expected)
            continue
        for sampler in ("sequential", "sliding"):
            own = SampleOptions(sampler=sampler, tolerance=1e-5, **options)
            events = invert_steps(flow, z, context, own, given)
            results = [e for e in events if isinstance(e, BlockResult)]
            assert_met(results[0].x, tensors[f"{key}.deep"])
            assert_met(results[-1].x, expected)
        if not begun:
            back = encode(flow, results[-1].x, context, **options).z
            assert_met(back, tensors["noise"])


def test_attention_temperature(load_case):
    flow, tensors, info = load_case("video_tiny")
    z, context = channels_last(tensors["noise"]), context_of(tensors, info, 3.5)
    options = dict(guidance=3.5, sampler="sequential", attention_temperature=0.8)
    assert_met(invert(flow, z, context, **options), tensors["sequential.cfg3.5.temp0.8"])


@pytest.mark.parametrize("name", CLIPS)
def test_denoised(load_case, name):
    flow, tensors, info = load_case(name)
    context = context_of(tensors, info, 0)
    for _, expected, match in keys_of(
        tensors, r"(still\.)?(learned|self)_denoised(?:\.window(\d+))?"
    ):
        still, method, window = match.groups()
        sample = f"{still or ''}sequential.cfg3.5.{len(flow.blocks)}"
        sample = sample if sample in tensors else "continued.cfg3.5"
        method = "learned" if method == "learned" else "score"
        window = int(window) if window else None
        x = denoise(flow, channels_last(tensors[sample]), context, method=method, window=window)
        assert_met(x, expected)
