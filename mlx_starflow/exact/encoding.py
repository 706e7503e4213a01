"""Data to noise, with the same options as a sampler: the exact inverse of ``invert``.

Unlike sampling, this needs no loop over tokens, even with guidance: the guided scale and mean of a
token depend on the tokens before it, and in encoding all tokens are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..device.typed import scalar
from ..device.wired import wired
from ..errors import NumericsError, UsageError
from ..flow import Block, Context, Flow
from ..flow.grid import Grid, grid_of, patchify, unpatchify
from ..sampling import BlockResult, SampleOptions, check_options, invert_steps
from ..sampling.conditional import Conditional
from ..sampling.invert import inputs_of_given, stacked_context
from ..sampling.stretches import Stretch, stretches
from .likelihood import normal_log_prob


@dataclass(frozen=True)
class Encoding:
    """The noise of some data for given options."""

    z: mx.array  # (B, H, W, C) float32, in image layout, for a clip (B, N, H, W, C);
    # invert(flow, z, ...) returns the data
    logdet: mx.array  # (B,) log |det dz/dx| in nats; with guidance, of the guided map
    given: int = 0  # latent frames that were given; ``logdet`` is that of the others

    @property
    def log_prob(self) -> mx.array:
        """(B,) exact log-density, in nats, of the distribution that the sampler draws from with
        these options; of the frames after the given ones. With guidance this is not the likelihood
        of the model, which is ``mlx_starflow.log_prob``."""
        return normal_log_prob(self.z[:, self.given :] if self.given else self.z) + self.logdet


@wired()
def encode(
    flow: Flow, x: mx.array, context: Context = None, given: int = 0, **options: Any
) -> Encoding:
    """The noise z for which ``invert(flow, z, context, **options)`` returns x.

    One parallel pass.
    x (B, H, W, C), or a clip (B, N, H, W, C): no noise is added to it. context and options: as for
    ``invert``, with guidance captions, then null captions. given: the sampler is given so many
    frames of the clip, ``invert(flow, z, context, given=x[:, :given], **options)``; the noise at
    their places is that without guidance. Options on how to find the inverse (sampler, tolerance,
    ...) have no effect. Errors: UsageError, NumericsError.
    """
    settings = SampleOptions(**({"sampler": "sequential"} | options))
    check_options(flow, settings)
    grid, batch = grid_of(x, flow.config), x.shape[0]
    context = stacked_context(flow, context, batch, settings)
    known = _tokens_of_given(flow, x, context, given)
    start = given * grid.frame_tokens
    u = patchify(x.astype(mx.float32), flow.config)
    logdet = mx.zeros((batch,))
    for index in range(len(flow.blocks)):
        u, log_scale = encode_block(flow, index, u, grid, context, settings, given)
        logdet = logdet + log_scale
        if known:
            u = mx.concatenate([known[index + 1], u[:, start:]], axis=1)
        mx.eval(u, logdet)
    if "prior_var" in flow:
        u = u * mx.rsqrt(flow.prior_var)
        logdet = logdet - 0.5 * mx.log(flow.prior_var).sum()
    if not mx.isfinite(u).all().item():
        raise NumericsError("The encoding holds NaN or infinity; is the picture finite?")
    return Encoding(unpatchify(u, grid, flow.config), logdet, given)


def _tokens_of_given(flow: Flow, x: mx.array, context: Context, given: int) -> list[mx.array]:
    """Tokens (B, given F, D) of the given frames before every block and after the last one, in
    raster order; without guidance, as the sampler has them. [] if none are given."""
    if given == 0:
        return []
    if given != int(given) or given < 0:
        raise UsageError(f"given is {given}; expected a whole number of latent frames.")
    frames = x[:, :given]
    known = inputs_of_given(flow, frames, x, context)
    own = None if context is None else context[: x.shape[0]]
    last, grid = len(flow.blocks) - 1, grid_of(frames, flow.config)
    return [*known, flow.through_block(last, known[-1], grid, own)[0]]


def encode_block(
    flow: Flow,
    index: int,
    u: mx.array,
    grid: Grid,
    context: Context,
    options: SampleOptions,
    given: int = 0,
) -> tuple[mx.array, mx.array]:
    """Tokens u (B, T, D) in raster order through one block, from data to noise, with the guidance
    in the options. Returns the tokens after it, in raster order, and the log-determinant (B,).
    ``given``: latent frames that are given; their tokens are to be replaced in the result, and the
    log-determinant is that of the others."""
    block, order = flow.blocks[index], flow.order(index, grid)
    if not isinstance(block, Block):
        return u, mx.zeros((u.shape[0],))
    batch, u = u.shape[0], order.into(u)
    options = options.in_block(index, len(flow.blocks))
    parts, start = [Stretch(0, 0, 1)], given * grid.frame_tokens
    noise, log_scales = [u[:, :0]], []
    if order.grid.frames is not None:
        window = options.window if index == len(flow.blocks) - 1 else None
        parts = stretches(order.grid.frames, given, window, options.context_frames)
        noise = [u[:, :start]]
    for part in parts:
        sequence, first = order.grid, part.first * grid.frame_tokens
        if sequence.frames is not None:
            sequence = sequence.with_frames(part.frames)
        conditional = Conditional(block, sequence, context, u.shape[0], options, before=first)
        tokens, known = u[:, first : first + sequence.tokens], part.known * grid.frame_tokens
        sigma, b = conditional.all_at_once(tokens)
        noise.append(((tokens - b) / sigma)[:, known:])
        log_scales.append(-mx.log(sigma)[:, known:])
        mx.eval(noise[-1], log_scales[-1])
    v, log_scale = mx.concatenate(noise, axis=1), mx.concatenate(log_scales, axis=1)
    log_scale = log_scale.reshape(batch, -1, v.shape[-1])
    if log_scale.shape[1] == grid.tokens:  # a local block reads the given frames too
        log_scale = log_scale[:, start:]
    return order.back(v), log_scale.reshape(batch, -1).sum(axis=1)


def round_trip_error(
    flow: Flow,
    x: mx.array,
    z: mx.array,
    context: Context = None,
    step: Callable[[], None] = lambda: None,
    **options: Any,
) -> float:
    """Largest |invert(flow, z, context, **options) - x| over all numbers. ``step``: called while
    the work goes on."""
    back = z
    for event in invert_steps(flow, z, context, SampleOptions(**options)):
        step()
        back = event.x if isinstance(event, BlockResult) else back
    return scalar(mx.abs(back - x.astype(mx.float32)).max())
