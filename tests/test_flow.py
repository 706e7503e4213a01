"""What every flow must be, whatever its dialect: invertible, causal, exact in its determinant."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, ROUNDING, example, random_flow

from mlx_starflow import denoise, invert, log_prob
from mlx_starflow.errors import UsageError
from mlx_starflow.exact.denoise import score
from mlx_starflow.flow import Block
from mlx_starflow.flow.grid import grid_of, patchify, reverse, unpatchify
from mlx_starflow.sampling import SAMPLERS
from mlx_starflow.sampling.conditional import Conditional
from mlx_starflow.sampling.options import SampleOptions

every_family = pytest.mark.parametrize("family", FAMILIES)


def largest(a: mx.array) -> float:
    return mx.abs(a).max().item()


@every_family
def test_round_trip(family):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config)
    z, _ = flow(x, context)
    assert largest(z - x) > 0.1  # the flow does something
    assert largest(invert(flow, z, context, sampler="sequential") - x) < ROUNDING * 1e-4


@every_family
def test_a_single_token(family):
    config = replace(FAMILIES[family], grid_size=1)
    flow = random_flow(config)
    x, context = example(config)
    z, logdet = flow(x, context)
    assert logdet.shape == (len(x),)
    for sampler in SAMPLERS:
        assert largest(invert(flow, z, context, sampler=sampler) - x) < ROUNDING * 1e-4
    assert largest(score(flow, x, context) - mx.grad(
        lambda y: log_prob(flow, y, context).sum())(x)) < ROUNDING * 1e-4  # fmt: skip


@every_family
def test_logdet_is_that_of_the_jacobian(family):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config, batch=1)
    n = x.size
    rows = [
        mx.grad(lambda y, i=i: flow(y.reshape(x.shape), context)[0].reshape(-1)[i])(x.reshape(-1))
        for i in range(n)
    ]
    _, expected = np.linalg.slogdet(np.array(mx.stack(rows)).astype(np.float64))
    assert flow(x, context)[1].item() == pytest.approx(expected, abs=1e-4)


@every_family
def test_parameters_of_a_token_depend_on_no_token_from_it_on(family):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config)
    grid, u = grid_of(x, flow.config), patchify(x, flow.config)
    for block in flow.blocks:
        if not isinstance(block, Block):
            continue
        a, b = block.parameters_of(u, grid, context)
        for t in range(grid.tokens):
            changed = mx.where((mx.arange(grid.tokens) >= t)[:, None], u + 1.0, u)
            a2, b2 = block.parameters_of(changed, grid, context)
            assert mx.array_equal(a[:, : t + 1], a2[:, : t + 1])
            assert mx.array_equal(b[:, : t + 1], b2[:, : t + 1])
            if t + 1 < grid.tokens:
                assert largest(b2[:, t + 1] - b[:, t + 1]) > 0  # and it does depend on token t


@every_family
@pytest.mark.parametrize("step", [1, 2, 4, 100])
def test_cached_is_uncached(family, step):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config, guided=False)
    grid, u = grid_of(x, flow.config), patchify(x, flow.config)
    for block in flow.blocks:
        if not isinstance(block, Block):
            continue
        whole = block.parameters_of(u, grid, context)
        state = block.begin(grid, context)
        previous = mx.concatenate([mx.zeros_like(u[:, :1]), u[:, :-1]], axis=1)
        for t in range(0, grid.tokens, step):
            part = block.conditionals(state, previous[:, t : t + step], t, grid)
            for one, all_of_it in zip(part, whole, strict=True):
                assert largest(one - all_of_it[:, t : t + step]) < ROUNDING * 1e-5


@every_family
def test_cache_can_be_written_again_from_an_earlier_place(family):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config)
    grid, u = grid_of(x, flow.config), patchify(x, flow.config)
    block = flow.blocks[-1]
    previous = mx.concatenate([mx.zeros_like(u[:, :1]), u[:, :-1]], axis=1)
    clean = block.begin(grid, context)
    expected = block.conditionals(clean, previous, 0, grid)
    state = block.begin(grid, context)
    block.conditionals(state, previous + 1.0, 0, grid)  # wrong guesses everywhere
    block.conditionals(state, previous[:, :2], 0, grid)
    a, b = block.conditionals(state, previous[:, 2:], 2, grid)
    assert largest(a - expected[0][:, 2:]) < ROUNDING * 1e-5
    assert largest(b - expected[1][:, 2:]) < ROUNDING * 1e-5


@every_family
def test_guided_pass_at_once_is_the_cached_one(family):
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, guided=True)
    grid, u = grid_of(z, flow.config), patchify(z, flow.config)
    options = SampleOptions(guidance=2.0, sampler="sequential", attention_temperature=0.7)
    if flow.config.model_type == "tarflow":
        labels = mx.full((2,), -1) if context is None else context
        context = mx.concatenate([labels, mx.full((2,), -1)]) if flow.config.num_classes else None
    for block in flow.blocks:
        if not isinstance(block, Block):
            continue
        conditional = Conditional(block, grid, context, 2, options)
        previous = mx.concatenate([mx.zeros_like(u[:, :1]), u[:, :-1]], axis=1)
        pairs = zip(conditional.affine(previous, 0), conditional.all_at_once(u), strict=True)
        for cached, whole in pairs:
            assert largest(cached - whole) < ROUNDING * 1e-5


@every_family
def test_score_is_the_gradient_of_log_prob(family):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config, batch=2)
    gradient = score(flow, x, context)
    direction = mx.random.normal(x.shape, key=mx.random.key(5))
    h = 1e-2
    ahead = log_prob(flow, x + h * direction, context)
    behind = log_prob(flow, x - h * direction, context)
    slope = (ahead - behind) / (2 * h)
    expected = (gradient * direction).sum(axis=(1, 2, 3))
    assert largest(slope - expected) < 2e-2 * max(1.0, largest(expected))
    std = flow.config.noise_std
    assert (
        largest(denoise(flow, x, context, method="score") - x - std**2 * gradient) < ROUNDING * 1e-6
    )


@every_family
def test_checkpointed_score_is_the_plain_one(family):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config)
    recomputed = score(flow, x, context, checkpoint=True)
    plain = score(flow, x, context, checkpoint=False)
    # Pictures are differentiated one by one or together: products of other shapes, which round
    # differently (by 2e-7 on a CPU, up to 1e-6 on a GPU), in numbers of size 10 and sums of them.
    assert largest(recomputed - plain) < ROUNDING * 1e-5 * max(1.0, largest(plain))


@every_family
def test_tokens_and_pictures(family):
    config = FAMILIES[family]
    x, _ = example(config)
    grid = grid_of(x, config)
    tokens = patchify(x, config)
    assert mx.array_equal(unpatchify(tokens, grid, config), x)
    assert mx.array_equal(reverse(reverse(tokens)), tokens)
    p = config.patch_size
    first = np.array(x[0, :p, :p])
    layout = (2, 0, 1) if config.model_type == "tarflow" else (0, 1, 2)
    assert np.array_equal(np.array(tokens[0, 0]), first.transpose(layout).reshape(-1))


def test_text_padding_is_attended_to():
    flow = random_flow(FAMILIES["released"])
    x, context = example(flow.config)
    padded = mx.concatenate([context, mx.zeros_like(context[:, :2])], axis=1)
    assert largest(flow(x, padded)[0] - flow(x, context)[0]) > 1e-4


@pytest.mark.parametrize(
    ("family", "context", "says"),
    [
        ("released", None, "needs text features"),
        ("released", mx.zeros((2, 4, 9)), "takes text features"),
        ("released", mx.zeros((3, 4, 10)), "3 rows for a batch of 2"),
        ("tarflow_plain", mx.zeros((2,)), "unconditional"),
        ("tarflow_classes", mx.array([0, 3]), "Labels go from 0 to 2"),
        ("tarflow_classes", mx.zeros((2, 1)), "takes int labels"),
    ],
)
def test_wrong_context_is_refused(family, context, says):
    flow = random_flow(FAMILIES[family])
    x, _ = example(flow.config)
    with pytest.raises(UsageError, match=says):
        flow(x, context)


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (3, 3, 2), (2, 0, 3, 2)])
def test_wrong_picture_is_refused(shape):
    flow = random_flow(FAMILIES["released"])
    with pytest.raises(UsageError):
        flow(mx.zeros(shape), mx.zeros((2, 4, 10)))
