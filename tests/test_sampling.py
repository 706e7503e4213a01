"""Every sampler gives the sequential answer, on every family, within what it promises."""

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, ROUNDING, example, random_flow, sensitivity
from mlx.utils import tree_flatten

import mlx_starflow as sf
from mlx_starflow import SampleOptions, invert, invert_steps
from mlx_starflow.errors import UsageError
from mlx_starflow.flow.grid import patchify, reverse
from mlx_starflow.sampling import AUTO, SAMPLERS, BlockResult, Step
from mlx_starflow.sampling.conditional import shared_rows
from mlx_starflow.sampling.guidance import guide_linear, guide_normal
from mlx_starflow.sampling.sliding import COMMIT_SHARE, TOLERANCE

every_family = pytest.mark.parametrize("family", FAMILIES)
EXACT = {
    "sequential": {},
    "sliding": {"tolerance": 1e-5},
    AUTO: {"tolerance": 1e-5},
    "jacobi": {"tolerance": 1e-12},
}


SIZES = (1, 2, 1000)  # of windows


def largest(a: mx.array) -> float:
    return mx.abs(a).max().item()


def naive_inverse(flow, z, context, guidance, temperature=1.0):
    """The definition, one uncached parallel pass per token: slow and plain."""
    u = patchify(z, flow.config)
    if "prior_var" in flow:
        u = u * mx.sqrt(flow.prior_var)
    grid, batch = flow.training_grid(), z.shape[0]
    tarflow = flow.config.model_type == "tarflow"
    for block, config in reversed(list(zip(flow.blocks, flow.config.blocks, strict=True))):
        if not config.layers:
            continue
        v = reverse(u) if config.flip else u
        u = mx.zeros_like(v)
        for t in range(grid.tokens):
            if not (guidance and config.conditioned):
                own = context if tarflow or context is None else context[:batch]
                a, b = block.parameters_of(u, grid, own)
                sigma = block.sigma(a)
            elif tarflow:
                a_c, b_c = block.parameters_of(u, grid, context)
                a_u, b_u = block.parameters_of(u, grid, mx.full((batch,), -1))
                sigma = block.sigma(a_c + guidance * (a_c - a_u))
                b = b_c + guidance * (b_c - b_u)
            else:
                a_c, b_c = block.parameters_of(u, grid, context[:batch])
                a_u, b_u = block.parameters_of(u, grid, context[batch:])
                s = mx.minimum(block.sigma(a_c) / block.sigma(a_u), 1.0) ** 2
                q = 1 + guidance - guidance * s
                sigma = block.sigma(a_c) / q**0.5
                b = ((1 + guidance) * b_c - guidance * s * b_u) / q
            token = sigma[:, t] * v[:, t] + b[:, t]
            u = mx.where((mx.arange(grid.tokens) == t)[:, None], token[:, None], u)
        u = reverse(u) if config.flip else u
    return u


@every_family
@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_every_sampler_is_the_definition(family, guidance):
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, guided=guidance > 0)
    expected = naive_inverse(flow, z, context, guidance)
    for sampler, options in EXACT.items():
        x = invert(flow, z, context, guidance=guidance, sampler=sampler, **options)
        assert largest(patchify(x, flow.config) - expected) < ROUNDING * 1e-4, sampler


# By default all sizes on one family, and one that divides no grid on all.
@every_family
@pytest.mark.parametrize("size", [7, *(pytest.param(s, marks=pytest.mark.slow) for s in SIZES)])
def test_windows_of_any_size(family, size):
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, guided=True)
    options = dict(guidance=1.5, max_sweeps=100, certify=False)
    expected = invert(flow, z, context, guidance=1.5, sampler="sequential")
    for window in (size, *SIZES) if family == "released" else (size,):
        for sampler, tolerance in (("sliding", 1e-5), ("jacobi", 1e-12)):
            own = dict(sampler=sampler, tolerance=tolerance, block_size=window)
            x = invert(flow, z, context, **own, **options)
            assert largest(x - expected) < ROUNDING * 1e-4, own


# a learned table of positions takes no other grid than the trained one
@pytest.mark.parametrize(
    "family", [name for name, c in FAMILIES.items() if c.blocks[0].position != "table"]
)
def test_one_token(family):
    config = FAMILIES[family]
    flow = random_flow(config)
    p = config.patch_size
    _, context = example(config, batch=2, guided=True)
    z = mx.random.normal((2, p, p, config.in_channels), key=mx.random.key(3))
    expected = invert(flow, z, context, guidance=2.0, sampler="sequential")
    for sampler in SAMPLERS:
        assert (
            largest(invert(flow, z, context, guidance=2.0, sampler=sampler) - expected)
            < ROUNDING * 1e-6
        )


def test_a_slow_picture_in_the_batch_changes_nothing_for_the_others():
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config, batch=3)
    z = mx.concatenate([z[:2], 8.0 * z[2:]])  # far outside what the others see
    options = dict(sampler="sliding", block_size=4, tolerance=1e-5)
    together = invert(flow, z, context, **options)
    for i in range(3):
        alone = invert(flow, z[i : i + 1], context[i : i + 1], **options)
        assert largest(together[i : i + 1] - alone) < ROUNDING * 1e-4


def test_non_square_grid():
    flow = random_flow(FAMILIES["released"])
    _, context = example(flow.config)
    z = mx.random.normal((2, 2, 5, 2), key=mx.random.key(8))
    x = invert(flow, z, context, tolerance=1e-5)
    assert largest(flow(x, context)[0] - z) < 1e-3
    assert largest(x - invert(flow, z, context, sampler="sequential")) < ROUNDING * 1e-4


@pytest.mark.parametrize("sampler", ["sequential", "sliding"])
def test_attention_temperature(sampler):
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config, guided=True)
    options = dict(guidance=2.0, sampler=sampler) | EXACT[sampler]
    cold = invert(flow, z, context, attention_temperature=0.5, **options)
    plain = invert(flow, z, context, **options)
    assert largest(cold - plain) > 1e-3
    # dividing the scale by the temperature is multiplying every query by its inverse
    sharper = random_flow(FAMILIES["released"])
    for block in sharper.blocks:
        for layer in block.layers:
            n = layer.attention.heads * layer.attention.head_dim
            qkv = layer.attention.qkv
            factor = mx.where(mx.arange(qkv.bias.size) < n, 2.0, 1.0)
            qkv.weight, qkv.bias = qkv.weight * factor[:, None], qkv.bias * factor
    assert largest(cold - invert(sharper, z, context, **options)) < ROUNDING * 1e-4


def test_report_counts_the_work_and_the_certificate_holds():
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config, guided=True)
    tokens = flow.training_grid().tokens
    events = list(invert_steps(flow, z, context, SampleOptions(guidance=2.0)))
    results = [e for e in events if isinstance(e, BlockResult)]
    assert [r.block for r in results] == [2, 1, 0]
    assert any(isinstance(e, Step) and e.tokens_done == tokens for e in events)
    for result in results:
        report = result.report
        assert report.converged and 0 <= report.residual <= TOLERANCE[mx.float32]
        assert 0 < report.weight_reads <= tokens
        assert report.evaluations >= tokens
        assert sum(report.sweeps.values()) == tokens
        assert report.certificate_reads == 1
        size = sum(w.nbytes for _, w in tree_flatten(flow.blocks[result.block].parameters()))
        assert report.bytes_read == size * report.weight_reads
        assert report.host_syncs == report.weight_reads + report.certificate_reads
    events = invert_steps(flow, z, context, SampleOptions(guidance=2.0, sampler="sequential"))
    for result in [e for e in events if isinstance(e, BlockResult)]:
        assert result.report.weight_reads == tokens and result.report.host_syncs == 0
        assert result.report.residual < ROUNDING * 1e-5


def test_few_sweeps_leave_a_residual_that_is_reported():
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config, guided=True)
    options = SampleOptions(guidance=4.0, sampler="sliding", max_sweeps=1)
    reports = [
        e.report for e in invert_steps(flow, z, context, options) if isinstance(e, BlockResult)
    ]
    assert all(r.weight_reads == 1 for r in reports)
    assert not all(r.converged for r in reports)
    assert max(r.residual for r in reports) > 1e-3


def test_a_failed_certificate_is_repaired(monkeypatch):
    from mlx_starflow.sampling import sliding as module

    class Careless(module._Walk):
        """Accepts tokens that have not converged, so that the final check must find them."""

        def __init__(self, block, v, commit, *rest):
            super().__init__(block, v, 1e4 * commit, *rest)

        def certify(self, tolerance):
            self.commit = module.COMMIT_SHARE * tolerance
            return super().certify(tolerance)

    monkeypatch.setattr(module, "_Walk", Careless)
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config, guided=True)
    expected = invert(flow, z, context, guidance=2.5, sampler="sequential")
    careless = invert(flow, z, context, guidance=2.5, sampler="sliding", certify=False)
    assert largest(careless - expected) > 1e-3
    events = invert_steps(flow, z, context, SampleOptions(guidance=2.5, sampler="sliding"))
    reports = [e.report for e in events if isinstance(e, BlockResult)]
    assert max(r.certificate_reads for r in reports) > 1
    assert all(r.converged and r.residual <= TOLERANCE[mx.float32] for r in reports)


def test_leaving_the_iteration_leaves_a_usable_flow():
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config)
    steps = invert_steps(flow, z, context, SampleOptions())
    next(steps)
    steps.close()
    assert largest(invert(flow, z, context) - invert(flow, z, context)) == 0


def test_windows_of_the_plan():
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config)
    options = SampleOptions(windows=(9, 2, 1))
    reports = {
        e.block: e.report
        for e in invert_steps(flow, z, context, options)
        if isinstance(e, BlockResult)
    }
    assert {i: (r.sampler, r.window) for i, r in reports.items()} == {
        0: ("sliding", 9),
        1: ("sliding", 2),
        2: ("sequential", 1),
    }


def test_guidance_of_normals():
    sigma_c, sigma_u, b_c, b_u, w = 0.8, 1.1, 0.3, -0.2, 3.0
    sigma, b = guide_normal(*(mx.array(x) for x in (sigma_c, b_c, sigma_u, b_u)), w)
    # p_c^(1+w) / p_u^w is normal with this precision, in units of the conditional's
    precision = (1 + w) / sigma_c**2 - w / sigma_u**2
    assert sigma.item() == pytest.approx(precision**-0.5, rel=1e-6)
    mean = ((1 + w) * b_c / sigma_c**2 - w * b_u / sigma_u**2) / precision
    assert b.item() == pytest.approx(mean, rel=1e-6)
    same, b_same = guide_normal(*(mx.array(x) for x in (sigma_c, b_c, sigma_c, b_c)), w)
    assert (same.item(), b_same.item()) == (pytest.approx(sigma_c), pytest.approx(b_c))


def test_linear_guidance_guides_what_it_is_told():
    a_c, b_c, a_u, b_u = (mx.array(x) for x in (1.0, 2.0, 0.5, 1.0))
    values = {k: guide_linear(a_c, b_c, a_u, b_u, 2.0, k) for k in ("ab", "a", "b")}
    found = {k: (a.item(), b.item()) for k, (a, b) in values.items()}
    assert found == {"ab": (2.0, 4.0), "a": (2.0, 2.0), "b": (1.0, 4.0)}


def test_annealed_guidance_begins_at_zero_and_ends_at_the_weight():
    flow = random_flow(FAMILIES["tarflow_classes"])
    z, labels = example(flow.config)
    plain = patchify(invert(flow, z, labels, guidance=2.0), flow.config)
    grown = patchify(invert(flow, z, labels, guidance=2.0, annealed=True), flow.config)
    none = patchify(invert(flow, z, labels), flow.config)
    assert largest(grown - plain) > 1e-3 and largest(grown - none) > 1e-3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(sampler="euler"), "expected one of auto, sequential"),
        (dict(guidance=-1.0), "guidance is -1"),
        (dict(guidance=float("nan")), "guidance is nan"),
        (dict(tolerance=0.0), "tolerance is 0"),
        (dict(block_size=0), "block_size is 0"),
        (dict(max_sweeps=0), "max_sweeps is 0"),
        (dict(guide="c"), "guide is 'c'"),
        (dict(annealed=True), "options of TarFlow"),
        (dict(guide="a"), "options of TarFlow"),
        (dict(attention_temperature=0.0), "attention_temperature is 0"),
        (dict(attention_temperature=0.5, sampler="jacobi"), "not defined for the jacobi"),
        (dict(sampler="sequential", max_sweeps=3), "sequential sampler has no option max_sweeps"),
        (dict(windows=(1, 2)), "this flow has 3 blocks"),
        (dict(windows=(1, 2, 3), sampler="sliding"), "windows is for"),
        (dict(guidance=1.0), "needs 4: captions, then null captions"),
    ],
)
def test_wrong_options_are_refused(options, says):
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config)
    with pytest.raises(UsageError, match=says):
        invert(flow, z, context, **options)


def test_bfloat16_keeps_its_own_promise():
    flow = random_flow(FAMILIES["released"])
    z, context = example(flow.config, guided=True)
    exact = np.array(invert(flow, z, context, guidance=2.0, sampler="sequential"))
    for block in flow.blocks:
        for layer in block.layers:
            layer.set_dtype(mx.bfloat16)
    reports = []
    for e in invert_steps(flow, z, context, SampleOptions(guidance=2.0)):
        if isinstance(e, BlockResult):
            reports.append(e.report)
    drift = np.abs(np.array(e.x) - exact).max() / exact.std()
    assert all(r.converged and r.residual <= TOLERANCE[mx.bfloat16] for r in reports)
    assert 1e-4 < drift < 0.3, f"drift of the bfloat16 latent: {drift:.3f} deviations"


# By default both samplers on one family.
@pytest.mark.parametrize(
    ("family", "sampler"),
    [
        pytest.param(f, s, marks=() if f == "released" or s == "sequential" else pytest.mark.slow)
        for f in FAMILIES
        for s in ("sequential", "sliding")
    ],
)
def test_compiled_steps_are_the_plain_ones_and_are_traced_once(family, sampler, monkeypatch):
    from mlx_starflow.flow import Block
    from mlx_starflow.sampling import compiled

    monkeypatch.setattr(compiled, "BUCKET", 4)
    traces, fixed_step = [], Block.fixed_step

    def counted(self, *args, **kwargs):
        traces.append(kwargs["visible"])
        return fixed_step(self, *args, **kwargs)

    monkeypatch.setattr(Block, "fixed_step", counted)
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, guided=True)
    options = dict(guidance=2.0, sampler=sampler, attention_temperature=0.7) | EXACT[sampler]
    if sampler == "sliding":
        options["block_size"] = 2
    plain = invert(flow, z, context, compile=False, **options)
    assert not traces
    assert largest(invert(flow, z, context, compile=True, **options) - plain) < ROUNDING * 1e-4
    warm = len(traces)
    assert 0 < warm <= 5 * len(flow.blocks)  # once per bucket of keys
    assert largest(invert(flow, z, context, compile=True, **options) - plain) < ROUNDING * 1e-4
    assert len(traces) == warm


@pytest.mark.parametrize("family", [name for name, c in FAMILIES.items() if c.text_channels])
def test_rows_that_share_their_text_compute_it_once(family):
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, batch=3)
    null = mx.zeros_like(context[:1])
    text = mx.concatenate([context[:2], context[:1], null, null, null])
    rows, where = shared_rows(text)
    assert rows.shape[0] == 3 and where.tolist() == [0, 1, 0, 2, 2, 2]
    assert mx.array_equal(rows[where], text)
    assert shared_rows(text[:2])[1] is None

    def sample(z, text):
        return invert(flow, z, text, guidance=2.0, sampler="sequential")

    together = sample(z, text)
    # Other batch sizes round differently, by up to 1e-6 of a number on a GPU; on its way to the
    # last token the sampler multiplies that by as much as it multiplies a change of its noise.
    most = 1e-6 * largest(together) * 10 * sensitivity(lambda z: sample(z, text), z, together)
    assert most < 0.05 * largest(together)  # another text gives another picture
    for i in range(3):
        alone = mx.concatenate([text[i : i + 1], null])
        assert largest(together[i : i + 1] - sample(z[i : i + 1], alone)) < most


@pytest.mark.parametrize(
    ("window", "prompt"),
    [(7, "a blue car in the desert"), pytest.param(32, "a fox", marks=pytest.mark.slow)],
)
def test_the_residual_is_what_tokens_were_committed_at(window, prompt):
    # unchanged tokens keep the values that later ones were computed from: no repair is needed
    pipe = sf.load()
    text = pipe.encode_prompts([prompt, ""])
    z = mx.random.normal((1, 16, 16, pipe.flow.config.in_channels), key=mx.random.key(0))
    options = SampleOptions(2.0, sampler="sliding", block_size=window, tolerance=1e-2)
    for event in invert_steps(pipe.flow, z, text, options):
        if isinstance(event, BlockResult):
            assert event.report.certificate_reads == 1
            assert event.report.residual <= COMMIT_SHARE * 1e-2 + 1e-4
