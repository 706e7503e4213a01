"""Measuring samplers and precisions: the counts are right, the distances mean what they say."""

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
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.app.benchmark_table import aligned, histogram
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
from mlx_starflow.benchmark.specs import parse_spec
from mlx_starflow.benchmark.subject import Subject, random_subject
from mlx_starflow.errors import NumericsError, UsageError
from mlx_starflow.quantization_cost import PRECISIONS, CostOptions, Precision, quantization_cost

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


# Specs


def test_a_spec_reads_what_it_writes():
    for text in ("sequential", "jacobi", "jacobi:16:0.001:32", "sliding::1e-05", "auto:8", "auto"):
        assert str(parse_spec(text)) == text
    assert parse_spec("sliding::1e-5") == SamplerSpec("sliding", tolerance=1e-5)
    assert parse_specs("sequential, jacobi ,sequential,") == [
        SamplerSpec("sequential"),
        SamplerSpec("jacobi"),
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sequental", "expected one of auto, sequential"),
        ("jacobi:sixteen", "window is 'sixteen'"),
        ("jacobi:16:tight", "tolerance is 'tight'"),
        ("jacobi:16:1e-3:2.5", "most sweeps is '2.5'"),
        ("jacobi:0", "block_size is 0"),
        ("sliding:8:-1", "tolerance is -1"),
        ("jacobi:1:1:1:1", "has 4 settings"),
        ("sequential:4", "no settings"),
        (",", "empty"),
    ],
)
def test_a_wrong_spec_is_named(text, part):
    with pytest.raises(UsageError, match=part):
        parse_specs(text)


# Random flows


@pytest.mark.parametrize(
    ("text", "words", "part"),
    [
        ("512", "4x8", "WIDTH,LAYERS"),
        ("512,two", "4x8", "WIDTH,LAYERS"),
        ("500,2,2", "4x8", "multiple of 32"),
        ("64,2,0", "4x8", "one or more"),
        ("64,2,2", "4", "LENGTHxWIDTH"),
        ("64,2,2", "0x8", "text_length is 0"),
    ],
)
def test_a_wrong_shape_is_named(text, words, part):
    with pytest.raises(UsageError, match=part):
        RandomShape.parse(text, 4, words)


def test_a_random_flow_has_the_sizes_asked_for():
    shape = RandomShape.parse("96,1,2,4", 5, "7x12")
    config = random_flow(shape).config
    assert [b.layers for b in config.blocks] == [1, 2, 4]
    assert {b.channels for b in config.blocks} == {96}
    assert [b.conditioned for b in config.blocks] == [False, False, True]
    assert (config.grid_size, config.text_length, config.text_channels) == (5, 7, 12)


def test_a_random_flow_is_the_same_in_every_precision_but_for_rounding(flow):
    same = dict(tree_flatten(random_flow(SHAPE).parameters()))
    half = random_flow(SHAPE, dtype="bfloat16")
    for name, value in tree_flatten(flow.parameters()):
        assert mx.array_equal(value, same[name]), name
    for name, value in tree_flatten(half.parameters()):
        assert mx.allclose(value.astype(mx.float32), same[name], rtol=1e-2), name
    matrix = half.blocks[0].layers[0].attention.qkv.weight
    assert matrix.dtype == mx.bfloat16 and half.blocks[0].proj_out.weight.dtype == mx.float32
    assert "scales" in random_flow(SHAPE, quantize=4).blocks[1].layers[0].mlp.up
    with pytest.raises(UsageError, match="float16"):
        random_flow(SHAPE, dtype="int3")


def test_a_random_flow_is_one_that_can_be_inverted(flow, subject):
    x = sf.invert(flow, subject.noises[0], subject.contexts[0], guidance=3.6, sampler="sequential")
    assert mx.isfinite(x).all().item() and 0.1 < mx.std(x).item() < 30


# Comparing


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


# The cost of fewer bits


def test_joined_cases_are_the_first_pictures(subject):
    noise, context = subject.joined()
    assert noise.shape[0] == 2 and context.shape[0] == 4
    for i in range(2):
        assert mx.array_equal(noise[i], subject.noises[i][0])
        assert mx.array_equal(context[i], subject.contexts[i][0])
        assert mx.array_equal(context[2 + i], subject.contexts[i][2])


def test_fewer_bits_cost_more():
    subject = random_subject(SHAPE, count=1, batch=3)
    result = quantization_cost(
        lambda p: random_flow(SHAPE, p.dtype, p.quantize),
        subject.contexts[0],
        subject.noises[0],
        options=CostOptions(guidance=3.6),
    )
    rows = {row.precision: row for row in result.rows}
    assert list(rows) == ["float32", *(p.name for p in PRECISIONS)]
    first = rows["float32"]
    assert first.change == first.largest_change == first.distance == 0
    assert 0 < rows["8-bit"].rms_distance < rows["4-bit"].rms_distance
    assert rows["float16"].largest_change < rows["4-bit"].largest_change
    assert rows["float16"].rms_distance < rows["bfloat16"].rms_distance < 0.1
    sizes = [rows[name].megabytes for name in ("float32", "bfloat16", "8-bit", "mixed", "4-bit")]
    assert sizes == sorted(sizes, reverse=True)
    assert all(row.change_error >= 0 for row in result.rows) and result.scored == 3
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_likelihood_is_that_of_the_given_pictures(flow):
    latents = mx.random.normal((2, 3, 3, 4), key=mx.random.key(5))
    own = random_context(SHAPE, 2, guided=False)
    subject = random_subject(SHAPE, count=1, batch=1)
    result = quantization_cost(
        lambda p: random_flow(SHAPE, p.dtype, p.quantize),
        subject.contexts[0],
        subject.noises[0],
        latents=latents,
        latent_context=own,
        options=CostOptions(guidance=3.6, seed=3),
        precisions=[Precision("4-bit", "float32", 4)],
    )
    noise = mx.random.normal(latents.shape, key=mx.random.key(3))
    for row, bits in zip(result.rows, (None, 4), strict=True):
        exact = sf.log_prob(
            random_flow(SHAPE, quantize=bits), latents + flow.config.noise_std * noise, own
        )
        assert row.nats_per_dim == pytest.approx(exact.mean().item() / 36, rel=1e-4)
    with pytest.raises(UsageError, match="both or neither"):
        quantization_cost(
            lambda p: flow, subject.contexts[0], subject.noises[0], latent_context=own
        )


# The command


RANDOM = ("benchmark", "--random", "64,1,1", "--grid", 2, "--text", "3x8", "--repeat", 1)


def test_the_table_names_every_sampler(run):  # noqa: F811
    outcome = run(*RANDOM, "--samplers", "sequential,sliding:2", "--prompts", 1, "--batch", 2)
    assert outcome.status == 0, outcome.err
    assert "width 64, layers 1 1, text 3x8" in outcome.lines[0]
    for title in ("Seconds", "Work", "Accuracy", "Sweeps"):
        assert any(line.startswith(title) for line in outcome.lines)
    assert sum(line.startswith("sliding:2 ") for line in outcome.lines) == 6 + 4
    assert outcome.err == ""


def test_one_object_of_json(run, colours):  # noqa: F811
    outcome = run(
        "benchmark", "--model", colours, "--samplers", "sequential,sliding", "--repeat", 1, "--json"
    )
    assert outcome.status == 0, outcome.err
    data = json.loads(outcome.out)
    assert data["prompts"] == ["red", "green"] and data["guidance"] == 1.5
    assert data["text_encoding"]["peak_memory"] > 0
    sequential, sliding = data["samplers"]
    assert sequential["image_mse"] == 0 and sliding["image_psnr"] > 60
    assert sliding["speedup"]["runs"] == 2


@pytest.mark.parametrize("name", ["classes", "unconditional"])
def test_models_without_text(run, request, name):  # noqa: F811
    outcome = run(
        "benchmark", "--model", request.getfixturevalue(name), "--samplers", "sliding",
        "--repeat", 1, "--prompts", 1, "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (row,) = json.loads(outcome.out)["samplers"]
    assert row["distance"] < 1e-3


def test_quantization_of_a_model(run, wide, tmp_path):  # noqa: F811
    outcome = run("benchmark", "--model", wide, "--quantization", "--prompts", 2)
    assert outcome.status == 0, outcome.err
    for name in ("float32", *(p.name for p in PRECISIONS)):
        assert any(line.startswith(f"{name} ") for line in outcome.lines)
    Image.new("RGB", (12, 12), "red").save(tmp_path / "red.png")
    outcome = run(
        "benchmark", "--model", wide, "--quantization", "--prompts", 1, "--json",
        "--picture", tmp_path / "red.png",
    )  # fmt: skip
    data = json.loads(outcome.out)
    assert data["scored"] == data["sampled"] == 1
    assert data["rows"][0]["change_error"] is None
    assert data["rows"][-1]["image_psnr"] > 0


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--random 64,1,1 --samplers newton", "expected one of auto"),
        ("--random 64", "WIDTH,LAYERS"),
        ("--random 64,1,1 --text 3", "LENGTHxWIDTH"),
        ("--random 64,1,1 --model here", "leave out --model"),
        ("--grid 4", "--grid belongs to --random"),
        ("--random 64,1,1 --repeat 0", "repeat"),
        ("--random 64,1,1 --quantization --batch 2 --samplers jacobi", "--samplers, --batch"),
        ("--random 64,1,1 --picture a.png", "leave out --picture"),
        ("--model {unconditional} --guidance 2", "unconditional"),
        ("--prompt-file nowhere.txt", "no such file"),
    ],
)
def test_mistakes_are_told_before_any_work(run, unconditional, line, part):  # noqa: F811
    outcome = run("benchmark", *line.format(unconditional=unconditional).split())
    assert outcome.status == 2 and part in outcome.err and outcome.out == ""


# Text


def test_a_long_histogram_is_shortened_without_losing_anything():
    assert histogram({3: 2, 1: 5}) == "1x5  3x2"
    counts = {n: n for n in range(1, 41)}
    parts = histogram(counts).split()
    assert len(parts) <= 8 and parts[0].startswith("1-")
    assert sum(int(p.split("x")[1]) for p in parts) == sum(counts.values())


def test_columns_stand_under_one_another():
    lines = aligned([["a", "long head"], ["longer", "1"]]).splitlines()
    assert lines == ["a       long head", "longer          1"]
