"""Noise to data: inverts the blocks of a flow from last to first, each with a sampler."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import mlx.core as mx

from ..device.typed import parameters_of, scalar
from ..device.wired import wired_steps
from ..errors import UsageError
from ..flow import Block, Context, Flow
from ..flow.grid import Grid, grid_of, patchify, reverse, unpatchify
from .conditional import Conditional
from .jacobi import jacobi
from .options import BlockReport, BlockResult, SampleOptions, Step
from .outcome import Outcome
from .plan import AUTO, plan_blocks
from .sequential import sequential
from .sliding import sliding
from .tolerance import ABOVE, SWEEPS, WITHIN

Sampler = Callable[[Conditional, mx.array, SampleOptions], Generator[int, None, Outcome]]
SAMPLERS: dict[str, Sampler] = {
    "sequential": sequential,
    "jacobi": jacobi,
    "sliding": sliding,
}


def invert(flow: Flow, z: mx.array, context: Context = None, **options: Any) -> mx.array:
    """Noise to data.

    z (B, H, W, C): standard normal noise in image layout. context: text features (B, L, D), with
    guidance (2B, L, D): captions, then null captions. For a TarFlow int labels (B,), -1 for none,
    or None. options: the fields of ``SampleOptions``. Returns x (B, H, W, C) float32, which for a
    model trained with added noise contains that noise (see ``denoise``). Errors: UsageError.
    """
    x = z
    for event in invert_steps(flow, z, context, SampleOptions(**options)):
        if isinstance(event, BlockResult):
            x = event.x
    return x


@wired_steps
def invert_steps(
    flow: Flow, z: mx.array, context: Context, options: SampleOptions
) -> Iterator[Step | BlockResult]:
    """``invert`` as an iterator of events: a ``Step`` after every unit of work and a
    ``BlockResult`` after every block. The last ``BlockResult`` holds the sample. The work is done
    while the iterator is advanced. Errors: UsageError."""
    check_options(flow, options)
    grid, batch = grid_of(z, flow.config), z.shape[0]
    context = stacked_context(flow, context, batch, options)
    u = patchify(z.astype(mx.float32), flow.config)
    if "prior_var" in flow:
        u = u * mx.sqrt(flow.prior_var)
    plan = plan_blocks(flow, grid, options)
    for index in reversed(range(len(flow.blocks))):
        u, report = yield from _invert_block(flow, index, u, grid, context, plan[index])
        yield BlockResult(index, unpatchify(u, grid, flow.config), report)


def _invert_block(
    flow: Flow, index: int, v: mx.array, grid: Grid, context: Context, options: SampleOptions
) -> Generator[Step, None, tuple[mx.array, BlockReport]]:
    block, tokens = flow.blocks[index], grid.tokens
    if not isinstance(block, Block):
        return v, BlockReport(index, "identity", tokens, tokens, 0, 0, residual=0.0)
    began = time.perf_counter()
    flip = flow.config.blocks[index].flip
    v = reverse(v) if flip else v
    conditional = Conditional(block, grid, context, v.shape[0], options)
    work = SAMPLERS[options.sampler](conditional, v, options)
    while True:
        try:
            done = next(work)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            break
        yield Step(index, done, tokens)
    residual, certificate_reads = outcome.residual, outcome.certificate_reads
    evaluations = conditional.evaluations - certificate_reads * tokens
    if options.certify and residual is None:
        sigma, b = conditional.all_at_once(outcome.tokens)
        residual = scalar(mx.abs(sigma * v + b - outcome.tokens).max())
        certificate_reads = 1
    converged = outcome.converged and (residual is None or residual <= outcome.allowed)
    u = reverse(outcome.tokens) if flip else outcome.tokens
    mx.eval(u)
    size = sum(weight.nbytes for _, weight in parameters_of(block))
    return u, BlockReport(
        block=index,
        sampler=options.sampler,
        tokens=tokens,
        window=outcome.window,
        weight_reads=conditional.weight_reads - outcome.certificate_reads,
        evaluations=evaluations,
        sweeps=outcome.sweeps,
        bytes_read=size * (conditional.weight_reads - outcome.certificate_reads),
        certificate_reads=certificate_reads,
        host_syncs=outcome.host_syncs,
        residual=residual,
        converged=converged,
        accuracy=outcome.accuracy or _word(outcome, converged),
        floor=outcome.floor,
        seconds=time.perf_counter() - began,
    )


def _word(outcome: Outcome, converged: bool) -> str:
    """``BlockReport.accuracy`` for a sampler that does not set it."""
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
