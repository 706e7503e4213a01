"""Guidance in the deep block only, for models that are conditioned everywhere."""

from __future__ import annotations

import mlx.core as mx
import pytest
from families import FAMILIES, example, random_flow

import mlx_starflow as sf
from mlx_starflow.errors import UsageError

EVERYWHERE = ("text_everywhere", "tarflow_classes")
SAMPLERS = ("sequential", "sliding", "jacobi", "auto")


def sample(family: str, guidance: float, blocks: str, sampler: str = "sequential") -> mx.array:
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, guided=guidance > 0)
    return sf.invert(flow, z, context, guidance=guidance, guidance_blocks=blocks, sampler=sampler)


def distance(a: mx.array, b: mx.array) -> float:
    return mx.abs(a - b).max().item()


@pytest.mark.parametrize("family", EVERYWHERE)
def test_it_is_neither_all_nor_none(family):
    every, deep = sample(family, 2.0, "all"), sample(family, 2.0, "deep")
    assert distance(every, deep) > 1e-3
    assert distance(deep, sample(family, 0.0, "all")) > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("family", EVERYWHERE)
def test_every_sampler_guides_the_same_blocks(family, sampler):
    exact, found = sample(family, 2.0, "deep"), sample(family, 2.0, "deep", sampler)
    assert distance(exact, found) < (0.5 if sampler == "jacobi" else 1e-2)


@pytest.mark.parametrize("family", EVERYWHERE)
def test_encoding_undoes_it(family):
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, guided=True)
    options = {"guidance": 2.0, "guidance_blocks": "deep"}
    x = sf.invert(flow, z, context, sampler="sequential", **options)
    assert distance(sf.encode(flow, x, context, **options).z, z) < 1e-3


def test_where_only_the_deep_block_is_conditioned_it_changes_nothing():
    assert distance(sample("released", 2.0, "deep"), sample("released", 2.0, "all")) == 0


def test_other_blocks_are_refused():
    with pytest.raises(UsageError, match="guidance_blocks is 'shallow'"):
        sample("released", 2.0, "shallow")
