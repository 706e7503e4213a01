"""The interface between a block and a sampler: sigma and b of tokens, given the tokens before.

Classifier-free guidance is applied here. With guidance, the block runs on a batch of conditional
rows followed by null rows, and both halves get the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ..device.activations import on_gpu
from ..device.pieces import is_short
from ..flow import Block, Context, layer_operations
from ..flow.grid import Grid
from .compiled import CompiledSteps
from .guidance import guide_linear, guide_normal
from .options import SampleOptions


@dataclass(frozen=True)
class Guidance:
    """Combines the conditional and the null half of a batch; the fields are guidance options."""

    guided: bool  # False: the batch has conditional rows only
    weight: float
    guide: str
    annealed: bool
    tokens: int  # T
    split: Any = None  # a Split of flow/split.py: this rank has one half only

    def rows(self, previous: mx.array) -> mx.array:
        """The inputs of the block, (B, n, D) or twice these rows, from tokens (B, n, D)."""
        both = self.guided and self.split is None
        return mx.concatenate([previous, previous]) if both else previous

    def combine(
        self, block: Block, a: mx.array, b: mx.array, t: int | mx.array
    ) -> tuple[mx.array, mx.array]:
        """sigma and b (B, n, D) of tokens t ... t + n - 1, from a and b of all rows."""
        if not self.guided:
            return block.sigma(a), b
        if self.split is not None:
            a, b = self.split.exchange(a, b)
        (a_c, a_u), (b_c, b_u) = mx.split(a, 2), mx.split(b, 2)
        if block.flow.model_type == "tarflow":
            weight: float | mx.array = self.weight
            if self.annealed:
                place = (t + mx.arange(a_c.shape[1]))[:, None]
                weight = weight * place / max(self.tokens - 1, 1)
            a, b = guide_linear(a_c, b_c, a_u, b_u, weight, self.guide)
            return block.sigma(a), b
        return guide_normal(block.sigma(a_c), b_c, block.sigma(a_u), b_u, self.weight)


class Conditional:
    """Affine parameters of one block for a batch of B pictures, with a KV cache."""

    def __init__(
        self,
        block: Block,
        grid: Grid,
        context: Context,
        batch: int,
        options: SampleOptions,
        steps_of: int | None = None,
        before: int = 0,
    ):
        """grid: of one of the block's sequences. context: rows as made by ``stacked_context``.
        batch: number of sequences. steps_of: tokens per step for which a compiled function is made;
        None: ``options.block_size``. before: number of tokens of the clip before the first here."""
        self.block, self.grid, self.options, self.before = block, grid, options, before
        self.tokens = grid.tokens
        self.known: mx.array | None = None  # (B, n, D), tokens that stand at the beginning
        tarflow = block.flow.model_type == "tarflow"
        temperature = options.attention_temperature
        if tarflow:
            self.guided = options.guidance > 0 and (block.config.conditioned or temperature != 1)
        else:
            self.guided = options.guidance > 0 and block.config.conditioned
        if not self.guided and context is not None:
            context = context[:batch]
        self.context = context
        rows = 2 * batch if self.guided else batch
        self.sharpness = None
        if temperature != 1 and (not tarflow or self.guided):
            cold = 1.0 / temperature
            scale = [1.0] * batch + [cold] * batch if tarflow else [cold] * rows
            self.sharpness = mx.array(scale)[:, None, None, None]
        split = block.split if block.split is not None and block.split.active else None
        if split is not None and self.guided:
            own = split.own_half(batch)
            self.context = context = None if context is None else context[own]
            self.sharpness = None if self.sharpness is None else self.sharpness[own]
        of_batch: mx.array | None = None
        if block.flow.text_channels and block.config.conditioned:
            context, of_batch = shared_rows(cast(mx.array, context))
        bits = options.kv_bits
        self.state = block.begin(grid, context, self.sharpness, of_batch, bits)
        self.guide = Guidance(
            self.guided, options.guidance, options.guide, options.annealed, self.tokens, split
        )
        self.weight_reads = self.evaluations = 0
        self.compiled = None
        compiling = options.compile if options.compile is not None else on_gpu()
        apart = split is None and block.share is None  # a message is no part of a compiled step
        if compiling and apart and bits not in (8, 4):
            steps_of, keys = steps_of or options.block_size or 1, self.state.caches[0].capacity
            work = len(block.layers) * layer_operations(block.config, rows, steps_of, keys)
            if is_short(work):  # a compiled step is one evaluation; others are done in pieces
                self.compiled = CompiledSteps(block, self.state, steps_of, self.guide)

    def affine(self, previous: mx.array, t: int) -> tuple[mx.array, mx.array]:
        """sigma and b (B, n, D) of tokens t ... t + n - 1, in the block's order.

        ``previous`` (B, n, D): tokens t - 1 ... t + n - 2 (the first is ignored at t = 0). Their
        keys and values overwrite the cache from that position on.
        """
        self.weight_reads += 1
        self.evaluations += previous.shape[1]
        if self.compiled is not None and self.compiled.takes(previous.shape[1], t):
            return self.compiled(previous, t)
        a, b = self.block.conditionals(self.state, self.guide.rows(previous), t, self.grid)
        return self.guide.combine(self.block, a, b, t)

    @property
    def start(self) -> int:
        """The first token to be solved."""
        return 0 if self.known is None else self.known.shape[1]

    def begin_with(self, known: mx.array) -> None:
        """Tokens (B, n, D) that stand at the beginning: their keys enter the cache in one pass, in
        both halves of guidance."""
        nothing = mx.zeros_like(known[:, :1])
        self.affine(mx.concatenate([nothing, known[:, :-1]], axis=1), 0)
        mx.eval(self.state.arrays())
        self.known = known

    def solved(self) -> list[mx.array]:
        """What a sampler begins its list of solved tokens with."""
        return [] if self.known is None else [self.known]

    def last(self, v: mx.array) -> mx.array:
        """(B, 1, D): the token before the first one to be solved, zeros where there is none."""
        return mx.zeros_like(v[:, :1]) if self.known is None else self.known[:, -1:]

    def all_at_once(self, u: mx.array) -> tuple[mx.array, mx.array]:
        """sigma and b (B, T, D) of all tokens u (B, T, D), in one pass without the cache."""
        rows = self.guide.rows(u)
        a, b = self.block.parameters_of(rows, self.grid, self.context, sharpness=self.sharpness)
        return self.guide.combine(self.block, a, b, 0)


def shared_rows(context: mx.array) -> tuple[mx.array, mx.array | None]:
    """Remove repeated rows from a context (N, L, D), so that they are computed once. Returns the
    distinct rows (M, L, D) and the index (N,) of each row among them, None if all differ."""
    if context.shape[0] == 1:
        return context, None
    distinct: dict[bytes, int] = {}
    where = [distinct.setdefault(row.tobytes(), len(distinct)) for row in np.array(context)]
    if len(distinct) == len(where):
        return context, None
    first = [where.index(i) for i in range(len(distinct))]
    return context[mx.array(first)], mx.array(where)
