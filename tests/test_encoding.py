"""Encoding is the exact inverse of sampling, with guidance too; paths between noises."""

import math

import mlx.core as mx
import pytest
from families import FAMILIES, ROUNDING, example, random_flow

from mlx_starflow import invert, log_prob
from mlx_starflow.errors import NumericsError, UsageError
from mlx_starflow.exact.encoding import encode, round_trip_error
from mlx_starflow.exact.sphere import slerp

every_family = pytest.mark.parametrize("family", FAMILIES)


def largest(a: mx.array) -> float:
    return mx.abs(a).max().item()


@every_family
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_decoding_undoes_encoding(family, guidance):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config, guided=guidance > 0)
    options = {"guidance": guidance, "sampler": "sequential"}
    z = encode(flow, x, context, **options).z
    assert largest(z - x) > 0.1
    assert largest(invert(flow, z, context, **options) - x) < 1e-3
    assert round_trip_error(flow, x, z, context, **options) < 1e-3


@every_family
def test_without_guidance_encoding_is_the_flow(family):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config)
    encoding = encode(flow, x, context)
    assert largest(encoding.z - flow(x, context)[0]) < ROUNDING * 1e-4
    assert largest(encoding.log_prob - log_prob(flow, x, context)) < 1e-3


def test_guidance_changes_the_code():
    flow = random_flow(FAMILIES["released"])
    x, context = example(flow.config, guided=True)
    plain = encode(flow, x, context[:2]).z
    assert largest(encode(flow, x, context, guidance=2.0).z - plain) > 1e-2


@pytest.mark.parametrize(
    "options", [{"guide": "b"}, {"annealed": True}, {"attention_temperature": 0.5}]
)
def test_every_option_of_the_sampler_is_undone(options):
    flow = random_flow(FAMILIES["tarflow_classes"])
    x, labels = example(flow.config)
    options = {"guidance": 2.0, "sampler": "sequential"} | options
    z = encode(flow, x, labels, **options).z
    assert largest(invert(flow, z, labels, **options) - x) < 1e-3


def test_a_prior_that_is_not_standard_is_undone():
    flow = random_flow(FAMILIES["tarflow_volume"])
    flow.prior_var = mx.random.uniform(0.5, 2.0, flow.prior_var.shape, key=mx.random.key(4))
    x, _ = example(flow.config)
    encoding = encode(flow, x)
    assert largest(invert(flow, encoding.z, sampler="sequential") - x) < ROUNDING * 1e-4
    assert largest(encoding.logdet + 0.5 * mx.log(flow.prior_var).sum()) < ROUNDING * 1e-4


def test_what_is_not_finite_is_an_error():
    flow = random_flow(FAMILIES["no_text"])
    with pytest.raises(NumericsError, match="NaN"):
        encode(flow, mx.full((1, 3, 3, 2), float("inf")))


def test_guidance_needs_null_captions():
    flow = random_flow(FAMILIES["released"])
    x, context = example(flow.config)
    with pytest.raises(UsageError, match="null captions"):
        encode(flow, x, context, guidance=2.0)


def test_slerp_turns_evenly_and_keeps_the_length():
    a, b = mx.array([2.0, 0.0]), mx.array([0.0, 2.0])
    for t in (0.25, 0.5, 0.9):
        angle = t * math.pi / 2
        expected = mx.array([2 * math.cos(angle), 2 * math.sin(angle)])
        assert largest(slerp(a, b, t) - expected) < ROUNDING * 1e-6


def test_slerp_gives_its_ends_exactly_and_blends_the_length():
    a, b = mx.random.normal((2, 4, 4, 3), key=mx.random.key(1))
    assert mx.array_equal(slerp(a, 3 * b, 0), a)
    assert mx.array_equal(slerp(a, 3 * b, 1), 3 * b)
    middle = mx.linalg.norm(slerp(a, 3 * b, 0.5).reshape(-1))
    ends = mx.linalg.norm(a.reshape(-1)) + 3 * mx.linalg.norm(b.reshape(-1))
    assert middle.item() == pytest.approx(0.5 * ends.item(), rel=1e-5)


def test_slerp_of_almost_parallel_noises_is_a_line():
    a = mx.random.normal((50,), key=mx.random.key(1))
    assert largest(slerp(a, 2 * a, 0.5) - 1.5 * a) < ROUNDING * 1e-5


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (mx.ones((3,)), mx.ones((4,)), "shapes"),
        (mx.ones((3,)), mx.zeros((3,)), "zero everywhere"),
        (mx.ones((3,)), -mx.ones((3,)), "opposite"),
    ],
)
def test_slerp_refuses_what_has_no_arc(a, b, says):
    with pytest.raises(UsageError, match=says):
        slerp(a, b, 0.5)
