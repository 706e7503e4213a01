"""Noise to data: inverts the blocks of a flow from last to first, each with a sampler."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from functools import reduce
from typing import Any

import mlx.core as mx

from ..device.typed import parameters_of, scalar
from ..device.wired import wired_steps
from ..errors import UsageError
from ..flow import Block, Context, Flow
from ..flow.grid import Grid, grid_of, patchify, unpatchify
from .conditional import Conditional
from .jacobi import jacobi
from .options import BlockReport, BlockResult, SampleOptions, Step
from .outcome import Outcome
from .plan import AUTO, plan_blocks
from .sequential import sequential
from .sliding import sliding
from .stretches import Stretch, stretches
from .tolerance import ABOVE, SWEEPS, WITHIN, arithmetic

Sampler = Callable[[Conditional, mx.array, SampleOptions], Generator[int, None, Outcome]]
SAMPLERS: dict[str, Sampler] = {
    "sequential": sequential,
    "jacobi": jacobi,
    "sliding": sliding,
}


def invert(
    flow: Flow,
    z: mx.array,
    context: Context = None,
    given: mx.array | None = None,
    **options: Any,
) -> mx.array:
    """Noise to data.

    z (B, H, W, C): standard normal noise in image layout, for a clip (B, N, H, W, C). context: text
    features (B, L, D), with guidance (2B, L, D): captions, then null captions. For a TarFlow int
    labels (B,), -1 for none, or None. given (B, n, H, W, C): the first n frames of the clip, with
    the noise of training added; the noise at their place is ignored. options: the fields of
    ``SampleOptions``. Returns x float32 of the shape of z, which for a model trained with added
    noise contains that noise (see ``denoise``). Errors: UsageError.
    """
    x = z
    for event in invert_steps(flow, z, context, SampleOptions(**options), given):
        if isinstance(event, BlockResult):
            x = event.x
    return x


@wired_steps
def invert_steps(
    flow: Flow,
    z: mx.array,
    context: Context,
    options: SampleOptions,
    given: mx.array | None = None,
) -> Iterator[Step | BlockResult]:
    """``invert`` as an iterator of events: a ``Step`` after every unit of work and a
    ``BlockResult`` after every block. The last ``BlockResult`` holds the sample. The work is done
    while the iterator is advanced. Errors: UsageError."""
    check_options(flow, options)
    grid, batch = grid_of(z, flow.config), z.shape[0]
    context = stacked_context(flow, context, batch, options)
    known = inputs_of_given(flow, given, z, context)
    u = patchify(z.astype(mx.float32), flow.config)
    if "prior_var" in flow:
        u = u * mx.sqrt(flow.prior_var)
    plan = plan_blocks(flow, grid, options)
    for index in reversed(range(len(flow.blocks))):
        frames = known[index] if known else None
        u, report = yield from _invert_block(flow, index, u, grid, context, plan[index], frames)
        if known and index == 0 and plan[0].sampler != "jacobi":  # whose own error is kept
            u = mx.concatenate([known[0], u[:, known[0].shape[1] :]], axis=1)
        yield BlockResult(index, unpatchify(u, grid, flow.config), report)


def inputs_of_given(
    flow: Flow, given: mx.array | None, z: mx.array, context: Context
) -> list[mx.array]:
    """Tokens (B, n F, D) of given frames at the data side of every block, in raster order; none
    where none are given. They go through the blocks with the captions, without guidance."""
    if given is None:
        return []
    grid, batch = check_given(flow, given, z), given.shape[0]
    own = None if context is None else context[:batch]
    tokens, inputs = patchify(given.astype(mx.float32), flow.config), []
    for index in range(len(flow.blocks)):
        inputs.append(tokens)
        if index + 1 < len(flow.blocks):
            tokens, _ = flow.through_block(index, tokens, grid, own)
            mx.eval(tokens)
    return inputs


def check_given(flow: Flow, given: mx.array, z: mx.array) -> Grid:
    """The grid of given frames. Errors: UsageError where they are no beginning of the clip."""
    if z.ndim != 5:
        raise UsageError("Given frames belong to a clip: the noise must be (B, N, H, W, C).")
    shape = (z.shape[0], *z.shape[2:])
    if given.ndim != 5 or (given.shape[0], *given.shape[2:]) != shape:
        raise UsageError(
            f"The given frames have shape {tuple(given.shape)}; expected (B, n, H, W, C) with the "
            f"B, H, W, C of the noise, {tuple(z.shape)}."
        )
    if not 0 < given.shape[1] < z.shape[1]:
        raise UsageError(
            f"{given.shape[1]} frames are given for a clip of {z.shape[1]}; expected from 1 to "
            f"{z.shape[1] - 1}."
        )
    flips = any(b.flip and b.layers for b in flow.config.blocks)
    if flow.config.temporal_causal == 0 and flips:
        raise UsageError(
            "This model reads clips backwards in some blocks (temporal_causal 0), so frames cannot "
            "be given to it."
        )
    return grid_of(given, flow.config)


def _invert_block(
    flow: Flow,
    index: int,
    v: mx.array,
    grid: Grid,
    context: Context,
    options: SampleOptions,
    given: mx.array | None,
) -> Generator[Step, None, tuple[mx.array, BlockReport]]:
    """``given`` (B, n F, D): tokens at the data side of the block that the clip begins with."""
    block, order = flow.blocks[index], flow.order(index, grid)
    tokens = order.grid.tokens
    if not isinstance(block, Block):
        return v, BlockReport(index, "identity", tokens, tokens, 0, 0, residual=0.0)
    began = time.perf_counter()
    v = order.into(v)
    parts = [Stretch(0, 0, 1)]
    solved = v[:, :0]
    if order.grid.frames is not None:
        deep = index == len(flow.blocks) - 1
        frames = 0 if given is None else given.shape[1] // grid.frame_tokens
        window = options.window if deep else None
        parts = stretches(order.grid.frames, frames, window, options.context_frames)
        if given is not None:
            solved = flow.order(index, grid.with_frames(frames)).turn(given)
    reports = []
    for part in parts:
        sequence, first = order.grid, part.first * grid.frame_tokens
        if sequence.frames is not None:
            sequence = sequence.with_frames(part.frames)
        conditional = Conditional(block, sequence, context, v.shape[0], options, before=first)
        if part.known:
            conditional.begin_with(solved[:, first:])
        noise = v[:, first : first + sequence.tokens]
        # With fewer bits in the cache the certificate is computed afterwards, without the cache:
        # one from the same cache would not show its errors, and a repair could not correct them.
        fewer = _fewer_bits(block, options)
        own = dataclasses.replace(options, certify=False) if fewer else options
        work = SAMPLERS[options.sampler](conditional, noise, own)
        while True:
            try:
                done = next(work)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                break
            yield Step(index, first + done, tokens)
        reports.append(_report(index, conditional, noise, outcome, options))
        solved = mx.concatenate([solved, outcome.tokens[:, conditional.start :]], axis=1)
        mx.eval(solved)
        del conditional, work  # else the caches of two windows would exist at once
    u = order.back(solved)
    mx.eval(u)
    report = reduce(BlockReport.joined, reports)
    return u, dataclasses.replace(report, tokens=tokens, seconds=time.perf_counter() - began)


def _report(
    index: int,
    conditional: Conditional,
    v: mx.array,
    outcome: Outcome,
    options: SampleOptions,
) -> BlockReport:
    """What solving one sequence cost and how exact it is."""
    residual, certificate_reads = outcome.residual, outcome.certificate_reads
    evaluations = conditional.evaluations - certificate_reads * conditional.tokens
    if options.certify and residual is None:
        sigma, b = conditional.all_at_once(outcome.tokens)
        errors = mx.abs(sigma * v + b - outcome.tokens)
        residual = scalar(errors[:, conditional.start :].max())
        certificate_reads = 1
    converged = outcome.converged and (residual is None or residual <= outcome.allowed)
    accuracy = outcome.accuracy or _word(outcome, converged)
    if _fewer_bits(conditional.block, options):
        # The samplers measured nothing, and the errors of fewer bits are no rounding errors.
        accuracy = _word(outcome, converged)
    size = sum(weight.nbytes for _, weight in parameters_of(conditional.block))
    return BlockReport(
        block=index,
        sampler=options.sampler,
        tokens=conditional.tokens,
        window=outcome.window,
        weight_reads=conditional.weight_reads - outcome.certificate_reads,
        evaluations=evaluations,
        sweeps=outcome.sweeps,
        bytes_read=size * (conditional.weight_reads - outcome.certificate_reads),
        certificate_reads=certificate_reads,
        host_syncs=outcome.host_syncs,
        residual=residual,
        converged=converged,
        accuracy=accuracy,
        floor=outcome.floor,
    )


def _fewer_bits(block: Block, options: SampleOptions) -> bool:
    """Whether keys and values are stored in fewer bits than they are computed in."""
    computed = 32 if arithmetic(block) == mx.float32 else 16
    return options.kv_bits is not None and options.kv_bits < computed


def _word(outcome: Outcome, converged: bool) -> str:
    """``BlockReport.accuracy`` where it follows from the residual that was measured here."""
    if converged:
        return WITHIN
    return ABOVE if outcome.converged else SWEEPS


def check_options(flow: Flow, options: SampleOptions) -> None:
    """Raise a UsageError if the model or the sampler does not support an option."""
    if options.sampler != AUTO and options.sampler not in SAMPLERS:
        names = ", ".join([AUTO, *SAMPLERS])
        raise UsageError(f"sampler is {options.sampler!r}; expected one of {names}.")
    for name in ("block_size", "max_sweeps"):
        if options.sampler == "sequential" and getattr(options, name) is not None:
            raise UsageError(f"The sequential sampler has no option {name}; leave it out.")
    if options.windows is not None and options.sampler != AUTO:
        raise UsageError(f"windows is for the sampler {AUTO!r} only; use block_size instead.")
    if options.windows is not None and len(options.windows) != len(flow.blocks):
        raise UsageError(
            f"windows has {len(options.windows)} entries; this flow has {len(flow.blocks)} blocks."
        )
    if options.window is not None and flow.config.frames == 1:
        raise UsageError("window is for clips; this is a model of pictures.")
    if flow.config.model_type != "tarflow" and (options.annealed or options.guide != "ab"):
        raise UsageError("guide and annealed are options of TarFlow; this model is a STARFlow.")
    if options.attention_temperature != 1 and options.sampler == "jacobi":
        raise UsageError("attention_temperature is not defined for the jacobi sampler.")


def stacked_context(flow: Flow, context: Context, batch: int, options: SampleOptions) -> Context:
    """Check the context of ``invert`` and return its rows: conditional, then null where guidance
    needs both. Errors: UsageError."""
    if flow.config.model_type == "tarflow":
        labels = flow.check_context(context, batch)
        if not options.guidance or not flow.config.num_classes:
            return labels
        null = mx.full((batch,), -1, dtype=mx.int32)
        return mx.concatenate([null if labels is None else labels, null])
    if not flow.config.text_channels:
        return flow.check_context(context, batch)
    rows = 2 * batch if options.guidance else batch
    if context is not None and context.ndim == 3 and context.shape[0] != rows:
        raise UsageError(
            f"The context has {context.shape[0]} rows; a batch of {batch} "
            + (
                f"with guidance needs {rows}: captions, then null captions."
                if options.guidance
                else f"without guidance needs {rows}."
            )
        )
    return flow.check_context(context, rows)
