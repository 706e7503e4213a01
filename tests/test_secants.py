"""The secants of the sliding window are exact for the modelled dependence, else harmless."""

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, example, random_flow

import mlx_starflow as sf
from mlx_starflow import SampleOptions, invert, invert_steps
from mlx_starflow.sampling import BlockResult
from mlx_starflow.sampling.plan import plan_blocks
from mlx_starflow.sampling.secants import LARGEST, Secants

B, T, D, WIDTH = 2, 12, 3, 4


@pytest.fixture
def linear():
    """u_t = c_t + A_t u_t-1 + C_t u_t-4, and its solution."""
    rng = np.random.default_rng(0)
    slopes = rng.normal(0, 0.4, (T, B, D, 2 * D)).astype(np.float32)
    constant = rng.normal(0, 0.2, (B, T, D)).astype(np.float32)

    def sweep(u, start=0):
        new = constant.copy()
        for t in range(T):
            for j, offset in enumerate((1, WIDTH)):
                if t >= offset:
                    part = slopes[t, :, :, j * D : (j + 1) * D]
                    new[:, t] += np.einsum("bij,bj->bi", part, u[:, t - offset])
        return new[:, start:]

    solution = np.zeros_like(constant)
    for _ in range(T):
        solution = sweep(solution)
    return slopes, sweep, solution


def test_right_slopes_solve_a_linear_block_at_once(linear):
    slopes, sweep, solution = linear
    secants = Secants(B, D, T, WIDTH, 0.0)
    secants.slopes[:] = slopes
    u = 0.1 * np.ones_like(solution)
    guess = u + secants.corrections(0, sweep(u) - u)
    assert np.abs(guess - solution).max() < 1e-5


def test_a_lesson_is_remembered(linear):
    _, sweep, solution = linear
    secants = Secants(B, D, T, WIDTH, 1e-6)
    rng = np.random.default_rng(1)
    u = solution + rng.normal(0, 0.1, solution.shape).astype(np.float32)
    w = solution + rng.normal(0, 0.1, solution.shape).astype(np.float32)
    secants.learn(0, u, sweep(u))
    secants.learn(0, w, sweep(w))
    for t in range(1, T):  # J dx = dy
        above = (w - u)[:, t - WIDTH] if t >= WIDTH else np.zeros((B, D))
        dx = np.concatenate([(w - u)[:, t - 1], above], axis=-1)
        dy = (sweep(w) - sweep(u))[:, t]
        assert np.abs(np.einsum("bij,bj->bi", secants.slopes[t], dx) - dy).max() < 1e-5
    assert np.abs(secants.slopes[0]).max() == 0  # nothing before the first token


def test_rounding_teaches_nothing(linear):
    _, sweep, solution = linear
    secants = Secants(B, D, T, WIDTH, 1e-3)
    secants.learn(0, solution, sweep(solution))
    near = solution + 5e-4
    secants.learn(0, near, sweep(near) + 1.0)
    assert np.abs(secants.slopes).max() == 0


def test_a_place_forgets_the_token_that_left_it(linear):
    _, sweep, solution = linear
    window = 4
    secants = Secants(B, D, window, WIDTH, 1e-6)
    for u in (solution + 0.1, solution - 0.1):
        secants.learn(1, u, sweep(u, 1)[:, :window])  # tokens 1 2 3 4
    assert (np.abs(secants.slopes).max(axis=(1, 2, 3)) > 0).all()
    secants.learn(3, solution, sweep(solution, 3)[:, :window])  # tokens 3 4 5 6
    kept = np.abs(secants.slopes).max(axis=(1, 2, 3)) > 0
    assert {t: kept[t % window] for t in (3, 4, 5, 6)} == {3: True, 4: True, 5: False, 6: False}


def test_corrections_are_bounded():
    secants = Secants(1, D, T, WIDTH, 0.0)
    secants.slopes[:] = 100.0
    delta = secants.corrections(0, np.full((1, T, D), 0.5, np.float32))
    assert np.abs(delta).max() <= LARGEST + 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_advice_costs_sweeps_not_accuracy(family, monkeypatch):
    rng = np.random.default_rng(2)
    monkeypatch.setattr(
        Secants, "corrections", lambda self, start, r: r + rng.normal(0, 0.3, r.shape)
    )
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, guided=True)
    expected = invert(flow, z, context, guidance=2.0, sampler="sequential")
    options = dict(guidance=2.0, sampler="sliding", block_size=4, tolerance=1e-5)
    assert mx.abs(invert(flow, z, context, **options) - expected).max().item() < 1e-4


def test_the_embedded_model_needs_fewer_reads_with_them():
    pipe = sf.load()
    prompts = ("a fox in snow", "two red birds over the sea at night")
    text = pipe.encode_prompts([*prompts, ""])
    side = pipe.flow.config.grid_size * pipe.flow.config.patch_size
    z = mx.random.normal((2, side, side, pipe.flow.config.in_channels), key=mx.random.key(0))

    def reads(secants: bool) -> int:
        total = 0
        options = SampleOptions(2.0, windows=(1, 1, 32), secants=secants, certify=False)
        for i in range(2):
            context = mx.concatenate([text[i : i + 1], text[-1:]])
            for event in invert_steps(pipe.flow, z[i : i + 1], context, options):
                if isinstance(event, BlockResult):  # of the deep block, which comes first
                    total += event.report.weight_reads
                    break
        return total

    assert reads(True) <= reads(False) - 2  # at least one in each picture


def test_only_the_deep_block_uses_them_unless_asked():
    flow = random_flow(FAMILIES["released"])
    grid, last = flow.training_grid(), len(flow.blocks) - 1
    for options in (SampleOptions(), SampleOptions(sampler="sliding")):
        used = [o.secants for o in plan_blocks(flow, grid, options)]
        assert used == [False] * last + [True]
    asked = plan_blocks(flow, grid, SampleOptions(secants=True))
    assert all(o.secants for o in asked)
