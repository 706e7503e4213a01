"""Sampling steps of fixed shape, compiled once and used for every token.

The number of keys in the attention is rounded up to a multiple of BUCKET, and a mask hides the
unused ones, so that a step is compiled once per bucket and not once per token. Compiled functions
are stored in the block and reused for later pictures. MLX ties them to the thread that made them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, cast

import mlx.core as mx

from ..flow import Block, BlockState
from ..flow.step import StepLayer
from .guidance import Pair

BUCKET = 256  # keys


class Ends(Protocol):
    """The code before and after the block, compiled together with it (see
    ``conditional.Guidance``): ``rows`` gives the inputs of the block, ``combine`` turns its a and b
    into sigma and b. Must be hashable: compiled steps are shared between equal ends."""

    def rows(self, previous: mx.array) -> mx.array: ...

    def combine(self, block: Block, a: mx.array, b: mx.array, t: int | mx.array) -> Pair: ...


class CompiledSteps:
    """Compiled ``Block.fixed_step`` for n tokens at a time, on the state of a block."""

    def __init__(self, block: Block, state: BlockState, n: int, ends: Ends):
        """``n``: tokens per step. ``ends``: code before and after the block, see ``Ends``."""
        self.block, self.state, self.n, self.ends = block, state, n, ends
        self.capacity = state.caches[0].capacity
        self.arrays = block.step_arrays(state)

    def takes(self, n: int, t: int) -> bool:
        """Whether a step over n tokens from token t can be done here."""
        return n == self.n and t >= 1 and all(c.keys is not None for c in self.state.caches)

    def __call__(self, previous: mx.array, t: int) -> tuple[mx.array, mx.array]:
        """sigma and b (B, n, D), guided, as from ``Conditional.affine``."""
        end = self.state.prefix + t + self.n
        visible = min(-(-end // BUCKET) * BUCKET, self.capacity)
        step = self._step(visible)
        caches = [(c.keys, c.values) for c in self.state.caches]
        for cache in self.state.caches:
            cache.keys = cache.values = None  # otherwise the step could not write in place
        sigma, b, caches = step(previous, mx.array(t), self.arrays, caches)
        for cache, (keys, values) in zip(self.state.caches, caches, strict=True):
            cache.keys, cache.values = keys, values
        return sigma, b

    def _step(self, visible: int) -> Callable[..., Any]:
        steps: dict[Any, Callable[..., Any]] = self.block.__dict__.setdefault("_steps", {})
        key = (threading.get_ident(), self.state.prefix, visible, self.n, self.ends)
        if key not in steps:
            # A weak reference, since the block holds the step: a reference cycle would keep the
            # weights in memory until Python's garbage collector happens to run.
            block, prefix, ends = weakref.ref(self.block), self.state.prefix, self.ends
            layers = self._layers()

            def fixed(
                previous: mx.array, t: mx.array, arrays: dict[str, mx.array], caches: list[Pair]
            ) -> tuple[mx.array, mx.array, list[Pair]]:
                alive = cast(Block, block())
                a, b, caches = alive.fixed_step(
                    layers, ends.rows(previous), t, arrays, caches, prefix=prefix, visible=visible
                )
                return *ends.combine(alive, a, b, t), caches

            steps[key] = mx.compile(fixed)
        return steps[key]

    def _layers(self) -> list[StepLayer]:
        """The block's layers for steps, which all compiled functions of this thread share."""
        kept: dict[int, list[StepLayer]] = self.block.__dict__.setdefault("_step_layers", {})
        return kept.setdefault(threading.get_ident(), self.block.step_layers())
