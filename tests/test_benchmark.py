"""The comparison of samplers has correct counts and distances."""

from __future__ import annotations

import dataclasses
import json
import math

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from families import FAMILIES, example
from families import random_flow as family_flow
from mlx.utils import tree_flatten

import mlx_starflow as sf
from mlx_starflow.benchmark import (
    BenchmarkOptions,
    Finish,
    RandomShape,
    SamplerSpec,
    Spread,
    compare,
    parse_specs,
    random_context,
    random_flow,
)
from mlx_starflow.benchmark.finish import psnr
from mlx_starflow.benchmark.subject import Subject, random_subject
from mlx_starflow.errors import NumericsError, UsageError

SHAPE = RandomShape(width=64, layers=(1, 3), grid=3, text_length=4, text_channels=8)
TOKENS = 9


@pytest.fixture(scope="module")
def flow():
    return random_flow(SHAPE)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return random_subject(SHAPE, count=2, batch=2)


@pytest.fixture(scope="module")
def compared(flow, subject):
    """The result, and what was run in which order."""
    order: list[str] = []
    result = compare(
        flow,
        subject.contexts,
        subject.noises,
        parse_specs("sequential,jacobi:3:0.5,sliding:4,auto:4"),
        BenchmarkOptions(guidance=subject.guidance, repeat=2),
        progress=lambda what, share: order.append(what),
    )
    return result, order


def of(result, spec: str, batch: int = 1):
    return next(s for s in result.samplers if s.spec == spec and s.batch == batch)


def test_every_round_goes_through_all_samplers(compared):
    result, order = compared
    assert (result.cases, result.repeat, result.tokens) == (2, 2, TOKENS)
    one_round = [
        f"{spec}{several}"
        for spec in ("sequential", "jacobi:3:0.5", "sliding:4", "auto:4")
        for several in ("", ", 2 pictures")
    ]
    assert order[16:] == one_round * 4, "after the first look: case by case, round by round"


def test_sequential_reads_every_block_once_a_token(compared, flow):
    row = of(compared[0], "sequential")
    assert row.deep.weight_reads == row.shallow.weight_reads == TOKENS
    assert row.weighted_reads == pytest.approx(TOKENS) and row.reads_of_sequential == 1
    assert row.distance == 0 and row.converged
    assert row.speedup == Spread(1, 1, 1, 4)
    size = sum(v.nbytes for b in flow.blocks for _, v in tree_flatten(b.parameters()))
    assert compared[0].weight_bytes == size
    assert row.bytes_read == pytest.approx(size * (TOKENS + 1)), "the certificate reads once more"


def test_reads_are_weighted_by_the_bytes_of_the_block(compared):
    row = of(compared[0], "sliding:4")
    deep, shallow = row.deep, row.shallow
    assert deep.weight_bytes > 2 * shallow.weight_bytes
    expected = deep.weight_reads * deep.weight_bytes + shallow.weight_reads * shallow.weight_bytes
    assert row.weighted_reads == pytest.approx(
        expected / (deep.weight_bytes + shallow.weight_bytes)
    )
    assert row.reads_of_sequential == pytest.approx(row.weighted_reads / TOKENS)
    assert sum(deep.sweeps.values()) == 2 * TOKENS, "one entry a token, in both cases"
    assert deep.windows == (4,) and row.shallow.windows == (4,)
    assert row.bytes_read == pytest.approx(deep.bytes_read + shallow.bytes_read)


def test_the_planner_is_told_from_the_sampler_by_the_blocks_it_chose(compared):
    row = of(compared[0], "auto:4")
    assert row.deep.windows == (4,) and row.shallow.windows == (TOKENS,)
    assert row.deep.samplers == ("sliding",)


def test_an_exact_sampler_is_near_and_a_loose_one_far(compared):
    result, _ = compared
    for batch in (1, 2):
        assert of(result, "sliding:4", batch).distance < 1e-3
        assert of(result, "sliding:4", batch).residual <= 1e-4
        loose = of(result, "jacobi:3:0.5", batch)
        assert loose.distance > 20 * of(result, "sliding:4", batch).distance
        assert loose.residual > 1e-2, "measured, although the sampler does not ask for it"


def test_distance_is_in_deviations_of_the_sequential_sample(flow, subject):
    spec = SamplerSpec("jacobi", 3, 0.5)
    options = BenchmarkOptions(guidance=3.6, repeat=1)
    noise, context = subject.noises[0], subject.contexts[0]
    (row,) = compare(
        flow, [context], [noise], [spec], dataclasses.replace(options, one_too=False)
    ).samplers
    exact = np.array(sf.invert(flow, noise, context, guidance=3.6, sampler="sequential"))
    loose = np.array(
        sf.invert(flow, noise, context, guidance=3.6, sampler="jacobi", block_size=3, tolerance=0.5)
    )
    assert row.distance == pytest.approx(np.abs(loose - exact).max() / exact.std(), rel=1e-4)
    assert row.batch == 2 and row.batch_cost is None
    assert row.speedup is None, "sequential was the measure, but was not timed"


def test_times_are_those_of_the_blocks(compared):
    for row in compared[0].samplers:
        assert row.seconds.runs == 4
        assert 0 < row.seconds.low <= row.seconds.median <= row.seconds.high
        assert row.seconds_deep.low + row.seconds_shallow.low <= row.seconds.high
        assert row.cpu_seconds.low > 0 and row.cpu_seconds.runs == 4
        assert set(row.peak_memory) == {"deep block", "shallow 1"}
        assert min(row.peak_memory.values()) > 0
        assert (row.batch_cost is None) == (row.batch == 1)


def test_the_result_is_json(compared):
    data = json.loads(json.dumps(compared[0].to_dict(), allow_nan=False))
    assert len(data["samplers"]) == 8
    assert data["machine"]["blas"] and data["machine"]["mlx"] == mx.__version__
    assert sum(data["samplers"][0]["deep"]["sweeps"].values()) == 2 * TOKENS


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_compared(name):
    config = FAMILIES[name]
    guidance = 1.5 if config.text_channels or config.num_classes else 0.0
    z, context = example(config, batch=1, guided=guidance > 0)
    result = compare(
        family_flow(config),
        [context],
        [z],
        parse_specs("sliding,auto:2"),
        BenchmarkOptions(guidance=guidance, repeat=1),
        Finish(),
    )
    for row in result.samplers:
        assert row.distance < 1e-3 and row.image_mse < 1e-6
        assert row.deep.blocks == 1
        blocks = sum(b.layers > 0 for b in config.blocks)
        assert (row.shallow.blocks if row.shallow else 0) == blocks - 1
    assert set(result.finishing) == {"denoise", "decode"}


def test_identical_pictures_have_no_noise_to_speak_of(flow, subject):
    result = compare(
        flow,
        subject.contexts[:1],
        subject.noises[:1],
        parse_specs("sequential,jacobi:3:0.5"),
        BenchmarkOptions(guidance=3.6, repeat=1, one_too=False),
        Finish(denoise=False),
    )
    same, loose = result.samplers
    assert same.image_mse == 0 and same.image_psnr is None
    assert loose.image_psnr == pytest.approx(-10 * math.log10(loose.image_mse))
    assert "denoise" not in result.finishing
    assert psnr(0.01) == pytest.approx(20)


def test_what_cannot_be_compared_is_refused(flow, subject):
    specs = parse_specs("sequential")
    with pytest.raises(UsageError, match="one of each"):
        compare(flow, subject.contexts, subject.noises[:1], specs)
    with pytest.raises(UsageError, match="shape"):
        noises = [subject.noises[0], subject.noises[0][:, :2]]
        compare(flow, subject.contexts, noises, specs)
    with pytest.raises(UsageError, match="repeat is 0"):
        BenchmarkOptions(repeat=0)
    with pytest.raises(UsageError, match="rows"):
        compare(flow, subject.contexts, subject.noises, specs, BenchmarkOptions(guidance=0))
    broken = random_flow(SHAPE)
    broken.blocks[0].proj_out.bias = mx.full(broken.blocks[0].proj_out.bias.shape, math.nan)
    with pytest.raises(NumericsError, match="sequential"):
        compare(broken, subject.contexts, subject.noises, specs, BenchmarkOptions(guidance=3.6))


def test_windows_are_measured_for_the_planner(flow, subject):
    (row,) = compare(
        flow,
        [random_context(SHAPE, 1, True)],
        [subject.noises[0][:1]],
        parse_specs("auto"),
        BenchmarkOptions(guidance=3.6, repeat=1),
    ).samplers
    assert row.distance < 1e-3
    assert all(1 <= w <= TOKENS for w in (*row.deep.windows, *row.shallow.windows))


def test_joined_cases_are_the_first_pictures(subject):
    noise, context = subject.joined()
    assert noise.shape[0] == 2 and context.shape[0] == 4
    for i in range(2):
        assert mx.array_equal(noise[i], subject.noises[i][0])
        assert mx.array_equal(context[i], subject.contexts[i][0])
        assert mx.array_equal(context[2 + i], subject.contexts[i][2])
