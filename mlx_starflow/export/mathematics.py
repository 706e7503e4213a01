"""The mathematics of sampling and scoring in a form that MLX can trace: without evaluation.

The operations are those of ``sampling.sequential``, ``exact.likelihood``, ``exact.encoding`` and
``exact.denoise``, in the same order, so that on one device the results are the same to the bit.
"""

from __future__ import annotations

import mlx.core as mx

from ..exact.likelihood import normal_log_prob
from ..flow import Block, Context, Flow
from ..flow.grid import grid_of, patchify, unpatchify
from .plan import Plan
from .steps import Steps


def to_tokens(flow: Flow, noise: mx.array) -> mx.array:
    """Noise (B, h, w, c) -> tokens (B, T, D) in raster order, scaled to the model's prior."""
    u = patchify(noise, flow.config)
    return u * mx.sqrt(flow.prior_var) if "prior_var" in flow else u


def sample(flow: Flow, plan: Plan, noise: mx.array, **given: mx.array) -> mx.array:
    """Noise (B, h, w, c) -> sample of the same shape, token after token."""
    u = to_tokens(flow, noise)
    for index in reversed(range(len(flow.blocks))):
        block, order = flow.blocks[index], flow.order(index, plan.grid)
        if isinstance(block, Block):
            u = order.back(_solved(block, index, plan, order.into(u), **given))
    return unpatchify(u, plan.grid, flow.config)


def _solved(block: Block, index: int, plan: Plan, v: mx.array, **given: mx.array) -> mx.array:
    """Noise v (B, T, D) in the block's order -> its tokens."""
    steps, (context, rows) = Steps(plan, index, block), plan.context(index, **given)
    caches, offset = steps.empty(), block.class_offset(context if plan.flow.num_classes else None)
    if steps.has_text:
        caches = begun(block, plan, context, rows)
    previous, done = mx.zeros_like(v[:, :1]), []
    for t in range(plan.grid.tokens):
        hidden, place = steps.start(previous, t, offset), steps.at(t)
        for j, cache in enumerate(caches):
            hidden, caches[j] = steps.layer(j, hidden, place, cache)
        sigma, b = steps.finish(hidden, t)
        previous = sigma * v[:, t : t + 1] + b
        done.append(previous)
    return mx.concatenate(done, axis=1)


def begun(
    block: Block, plan: Plan, context: Context, rows: mx.array | None
) -> list[tuple[mx.array, mx.array]]:
    """Keys and values of every layer with those of the text. ``context``, ``rows``: as of
    ``Plan.context``."""
    return [cache.written() for cache in block.begin(plan.grid, context, None, rows).caches]


def log_prob(flow: Flow, x: mx.array, context: Context) -> tuple[mx.array, mx.array]:
    """log p(x | context) in nats (B,), and the noise z of the shape of x, without guidance."""
    grid = grid_of(x, flow.config)
    u, logdet = patchify(x, flow.config), mx.zeros((x.shape[0],))
    for index in range(len(flow.blocks)):
        u, log_scale = flow.through_block(index, u, grid, context)
        if log_scale is not None:
            logdet = logdet + log_scale.sum(axis=(1, 2))
    z = unpatchify(u, grid, flow.config)
    return normal_log_prob(z) + logdet, z


def encoded(flow: Flow, plan: Plan, x: mx.array, **given: mx.array) -> mx.array:
    """The noise from which ``sample`` makes x (B, h, w, c), with its guidance."""
    u = patchify(x, flow.config)
    for index in range(len(flow.blocks)):
        block, order, guide = flow.blocks[index], flow.order(index, plan.grid), plan.guide(index)
        if not isinstance(block, Block):
            continue
        tokens, context = order.into(u), plan.all_rows(index, **given)
        a, b = block.parameters_of(guide.rows(tokens), plan.grid, context)
        sigma, b = guide.combine(block, a, b, 0)
        u = order.back((tokens - b) / sigma)
    if "prior_var" in flow:
        u = u * mx.rsqrt(flow.prior_var)
    return unpatchify(u, plan.grid, flow.config)


def denoised(flow: Flow, plan: Plan, x: mx.array, context: Context) -> mx.array:
    """A sample x (B, h, w, c) without the noise of training, by the plan's method."""
    if not plan.settings.denoise:
        return x
    if plan.settings.denoiser == "learned":
        return flow.denoiser(x, context)
    slope = mx.grad(lambda y: log_prob(flow, y, context)[0].sum())(x)
    return x + plan.noise_std**2 * slope
