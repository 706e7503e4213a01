"""Kept tokens do not change, new ones follow the model and do not depend on later tokens."""

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, ROUNDING, example, random_flow

from mlx_starflow import invert
from mlx_starflow.errors import UsageError
from mlx_starflow.exact.encoding import encode
from mlx_starflow.exact.infill import infill
from mlx_starflow.flow.grid import grid_of, patchify

every_family = pytest.mark.parametrize("family", FAMILIES)


def setting(family: str, guided: bool = False):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config, guided=guided)
    z = mx.random.normal(x.shape, key=mx.random.key(77))
    grid = grid_of(x, flow.config)
    return flow, x, context, z, (grid.height, grid.width)


def difference(flow, one: mx.array, two: mx.array) -> np.ndarray:
    """Largest difference of every token, (T,)."""
    apart = mx.abs(patchify(one, flow.config) - patchify(two, flow.config))
    return np.array(apart.max(axis=(0, 2)))


def largest(a: mx.array) -> float:
    return mx.abs(a).max().item()


@every_family
def test_kept_tokens_are_kept_and_the_others_are_new(family):
    flow, x, context, z, shape = setting(family)
    free = np.random.default_rng(3).random(shape) < 0.5
    change = difference(flow, infill(flow, x, z, free, context), x)
    assert (change[~free.reshape(-1)] == 0).all()
    assert (change[free.reshape(-1)] > 1e-4).all()


@every_family
def test_drawing_nothing_returns_the_picture(family):
    flow, x, context, z, shape = setting(family)
    assert mx.array_equal(infill(flow, x, z, np.zeros(shape, bool), context), x)


@every_family
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_drawing_everything_is_sampling(family, guidance):
    flow, x, context, z, shape = setting(family, guided=guidance > 0)
    filled = infill(flow, x, z, np.ones(shape, bool), context, guidance=guidance)
    expected = invert(flow, z, context, guidance=guidance, sampler="sequential")
    assert largest(filled - expected) < ROUNDING * 1e-5


@every_family
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_the_pictures_own_noise_fills_in_the_picture(family, guidance):
    flow, x, context, _, shape = setting(family, guided=guidance > 0)
    own = encode(flow, x, context, guidance=guidance).z
    free = np.random.default_rng(4).random(shape) < 0.5
    filled = infill(flow, x, own, free, context, guidance=guidance)
    assert largest(filled - x) < 1e-3


@pytest.mark.parametrize("flip", [False, True])
def test_the_deep_block_does_not_see_kept_tokens_after_the_new_one(flip):
    """With one block the order of the data is that of the deep block."""
    import dataclasses

    config = FAMILIES["released"]
    deep = dataclasses.replace(config.blocks[-1], flip=flip)
    flow = random_flow(dataclasses.replace(config, blocks=(deep,)))
    x, context = example(config)
    z = mx.random.normal(x.shape, key=mx.random.key(77))
    free = np.zeros((3, 3), bool)
    free[1, 1] = True
    before, after = [(0, 0), (2, 2)][:: -1 if flip else 1]
    filled = infill(flow, x, z, free, context)
    for place, seen in ((before, True), (after, False)):
        other = np.array(x)
        other[:, *place] += 1.0
        again = infill(flow, mx.array(other), z, free, context)
        assert (largest(again[:, 1, 1] - filled[:, 1, 1]) > 1e-3) == seen


def test_rows_of_a_batch_do_not_mix():
    flow, x, context, z, shape = setting("released")
    free = np.random.default_rng(3).random(shape) < 0.5
    both = infill(flow, x, z, free, context)
    alone = infill(flow, x[1:], z[1:], free, context[1:])
    assert largest(both[1:] - alone) < ROUNDING * 1e-5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"free": np.zeros((2, 3), bool)}, r"expected \(3, 3\)"),
        ({"z": mx.zeros((1, 3, 3, 2))}, "noise has shape"),
        ({"sampler": "jacobi"}, "'sequential'"),
        ({"annealed": True}, "TarFlow"),
    ],
)
def test_what_does_not_fit_is_refused(change, says):
    flow, x, context, z, shape = setting("released")
    given = {"x": x, "z": z, "free": np.zeros(shape, bool), "context": context} | change
    with pytest.raises(UsageError, match=says):
        infill(flow, **given)
