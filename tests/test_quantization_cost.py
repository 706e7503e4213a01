"""The effect of fewer bits on the likelihood and on the sample."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest
from command import run  # noqa: F401

import mlx_starflow as sf
from mlx_starflow.benchmark import (
    RandomShape,
    random_context,
    random_flow,
)
from mlx_starflow.benchmark.quantization_cost import (
    PRECISIONS,
    CostOptions,
    Precision,
    quantization_cost,
)
from mlx_starflow.benchmark.subject import random_subject
from mlx_starflow.errors import UsageError

SHAPE = RandomShape(width=64, layers=(1, 3), grid=3, text_length=4, text_channels=8)


@pytest.fixture(scope="module")
def flow():
    return random_flow(SHAPE)


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
