"""Scores are the logarithms of densities that integrate to one, split by place and paired."""

import dataclasses
import math

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, example, random_flow

from mlx_starflow.errors import NumericsError, UsageError
from mlx_starflow.exact.encoding import encode
from mlx_starflow.exact.likelihood import bits_per_dim, log_prob
from mlx_starflow.exact.scoring import (
    Score,
    ScoreOptions,
    noised,
    score_pictures,
    surprise,
    unconditioned_blocks,
)
from mlx_starflow.flow import Flow

every_family = pytest.mark.parametrize("family", FAMILIES)


def contexts_of(flow: Flow, count: int = 3):
    """Several conditions of a model, None where it takes none."""
    config = flow.config
    if config.text_channels:
        shape = (count, config.text_length, config.text_channels)
        return mx.random.normal(shape, key=mx.random.key(8))
    return mx.arange(count) - 1 if config.num_classes else None


@every_family
def test_surprise_sums_to_the_likelihood_of_every_picture_and_context(family):
    flow = random_flow(FAMILIES[family])
    x, _ = example(flow.config, batch=3)
    contexts = contexts_of(flow)
    nats = surprise(flow, x, contexts, batch=2)
    for p in range(1 if contexts is None else 3):
        context = None if contexts is None else mx.repeat(contexts[p : p + 1], 3, axis=0)
        expected = np.array(log_prob(flow, x, context))
        assert -nats[p].sum(axis=1) == pytest.approx(expected, abs=1e-3)


def test_surprise_is_where_the_odd_token_is():
    flow = random_flow(FAMILIES["no_text"])
    x = mx.zeros((1, 3, 3, 2))
    odd = mx.array(np.array(x))
    odd[0, 1, 2] = 40.0
    change = surprise(flow, odd)[0, 0] - surprise(flow, x)[0, 0]
    assert change.argmax() == 1 * 3 + 2


STEP, REACH = 0.3, 9.0


def planar_flow(family: str) -> Flow:
    """The family's flow on two tokens of one number each: a density of the plane, gentle enough
    for a grid of it to be a good integral."""
    config = FAMILIES[family]
    blocks = tuple(dataclasses.replace(b, position="spatial") for b in config.blocks)
    config = dataclasses.replace(config, blocks=blocks, in_channels=1, patch_size=1, grid_size=1)
    flow = random_flow(config)
    for block in flow.blocks:
        if "proj_out" in block:
            block.proj_out.weight = 0.3 * block.proj_out.weight
    return flow


def plane() -> mx.array:
    axis = mx.arange(-REACH, REACH, STEP) + STEP / 2
    first, second = mx.meshgrid(axis, axis)
    return mx.stack([first.reshape(-1), second.reshape(-1)], axis=1).reshape(-1, 1, 2, 1)


@pytest.mark.parametrize("family", ["released", "text_everywhere", "no_sos", "tarflow_classes"])
def test_the_density_integrates_to_one(family):
    flow, x = planar_flow(family), plane()
    density = np.exp(-surprise(flow, x, contexts_of(flow, 2), batch=5000).sum(axis=2))
    assert density.sum(axis=1) * STEP**2 == pytest.approx(1.0, abs=0.01)
    assert np.abs(density[0] - density[1]).sum() * STEP**2 > 0.01  # the context matters


@pytest.mark.parametrize("family", ["released", "text_everywhere", "tarflow_classes"])
def test_the_density_of_guided_sampling_integrates_to_one(family):
    flow, x = planar_flow(family), plane()
    contexts = contexts_of(flow, 2)
    if flow.config.model_type == "tarflow":
        contexts = contexts[1:]  # the null branch is made inside
    guided, plain = (
        mx.exp(encode(flow, x, mx.repeat(rows, x.shape[0], axis=0), guidance=w).log_prob)
        for w, rows in ((1.5, contexts), (0.0, contexts[:1]))
    )
    assert guided.sum().item() * STEP**2 == pytest.approx(1.0, abs=0.01)
    assert mx.abs(guided - plain).sum().item() * STEP**2 > 0.01  # guidance does something


def test_means_errors_posterior_and_pairs():
    log_p = np.array([[-10.0, -12.0, -11.0], [-12.0, -13.0, -14.0]])
    score = Score(log_p, np.zeros((2, 4)), None, 4, "gaussian", 0.3, 0)
    assert score.mean == pytest.approx([-11.0, -13.0])
    assert score.standard_error == pytest.approx([1 / math.sqrt(3)] * 2)
    assert score.posterior() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))])
    mean, error = score.advantage(over=1)
    assert mean == pytest.approx([2.0, 0.0])
    assert error == pytest.approx([1 / math.sqrt(3), 0.0])  # of 2, 1, 3: smaller than unpaired
    assert score.nats_per_dim == pytest.approx([-2.75, -3.25])
    assert score.bits_per_dim == pytest.approx([2.75 / math.log(2), 3.25 / math.log(2)])


def test_one_draw_has_no_standard_error():
    score = Score(np.array([[-1.0]]), np.zeros((1, 1)), None, 1, "none", 0.0, 0)
    assert np.isnan(score.standard_error).all()


def test_draws_depend_on_the_seed_alone():
    flow = random_flow(FAMILIES["released"])
    x, _ = example(flow.config, batch=2)
    contexts = contexts_of(flow)
    few = score_pictures(flow, x, contexts, ScoreOptions(draws=2, seed=3))
    more = score_pictures(flow, x, contexts, ScoreOptions(draws=4, seed=3, batch=1))
    alone = score_pictures(flow, x[1:], contexts, ScoreOptions(draws=4, seed=3))
    other = score_pictures(flow, x, contexts, ScoreOptions(draws=2, seed=4))
    assert more[1].log_p[:, :2] == pytest.approx(few[1].log_p, abs=1e-3)
    assert alone[0].log_p == pytest.approx(more[1].log_p, abs=1e-3)
    assert np.abs(other[0].log_p - few[0].log_p).min() > 1e-2


def test_the_noise_is_the_models_own():
    flow = random_flow(FAMILIES["released"])
    x, context = example(flow.config, batch=1)
    _, own = mx.random.split(mx.random.key(0))
    noisy = x + 0.3 * mx.random.normal(x.shape[1:], key=own)
    [score] = score_pictures(flow, x, context, ScoreOptions(draws=1))
    assert score.noise == "gaussian" and score.noise_std == 0.3
    assert score.mean == pytest.approx(np.array(log_prob(flow, noisy, context)), abs=1e-3)
    [clean] = score_pictures(flow, x, context, ScoreOptions(draws=5, noise="none"))
    assert clean.log_p.shape == (1, 1)
    assert clean.mean == pytest.approx(np.array(log_prob(flow, x, context)), abs=1e-3)


def test_pixels_are_dequantised_uniformly():
    config = FAMILIES["tarflow_plain"]
    pixels = np.arange(108).reshape(1, 6, 6, 3) * 255 // 107
    x = mx.array(pixels.astype(np.float32)) / 127.5 - 1
    u = np.array(noised(x, config, "uniform", mx.random.key(1)) + 1) * 128 - pixels
    assert -1e-4 <= u.min() < 0.1 and 0.9 < u.max() <= 1 + 1e-4
    flow = random_flow(config)
    [score] = score_pictures(flow, x, None, ScoreOptions(draws=1, seed=5))
    _, own = mx.random.split(mx.random.key(5))
    expected = bits_per_dim(log_prob(flow, noised(x, config, "uniform", own)), 108)
    assert score.bits_per_dim == pytest.approx(np.array(expected), abs=1e-4)


def test_a_uniform_pixel_model_needs_eight_bits():
    """An independent check of the constant: a density uniform on [-1, 1] costs 8 bits a pixel."""
    log_p = np.array([[-108 * math.log(2.0)]])
    score = Score(log_p, np.zeros((1, 9)), None, 108, "uniform", 0.0, 0)
    assert score.bits_per_dim == pytest.approx([8.0])


def test_blocks_without_context_are_shared():
    assert unconditioned_blocks(FAMILIES["released"]) == 2
    assert unconditioned_blocks(FAMILIES["text_everywhere"]) == 0
    assert unconditioned_blocks(FAMILIES["tarflow_plain"]) == 2
    assert unconditioned_blocks(FAMILIES["tarflow_classes"]) == 0
    assert unconditioned_blocks(FAMILIES["learned_table"]) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"draws": 0}, "draws is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"noise": "salt"}, "noise is 'salt'"),
    ],
)
def test_wrong_options_are_refused(options, says):
    with pytest.raises(UsageError, match=says):
        ScoreOptions(**options)


def test_uniform_noise_is_refused_for_latents():
    flow = random_flow(FAMILIES["released"])
    x, context = example(flow.config)
    with pytest.raises(UsageError, match="models of pixels"):
        score_pictures(flow, x, context, ScoreOptions(noise="uniform"))


def test_a_picture_that_is_not_finite_is_an_error():
    flow = random_flow(FAMILIES["no_text"])
    with pytest.raises(NumericsError, match="NaN"):
        surprise(flow, mx.full((1, 3, 3, 2), float("nan")))
