"""The input of a benchmark: sampler specifications and random flows."""

from __future__ import annotations

import mlx.core as mx
import pytest
from command import run  # noqa: F401
from mlx.utils import tree_flatten

import mlx_starflow as sf
from mlx_starflow.benchmark import (
    RandomShape,
    SamplerSpec,
    parse_specs,
    random_flow,
)
from mlx_starflow.benchmark.specs import parse_spec
from mlx_starflow.benchmark.subject import Subject, random_subject
from mlx_starflow.errors import UsageError

SHAPE = RandomShape(width=64, layers=(1, 3), grid=3, text_length=4, text_channels=8)


@pytest.fixture(scope="module")
def flow():
    return random_flow(SHAPE)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return random_subject(SHAPE, count=2, batch=2)


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
