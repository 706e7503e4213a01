"""Steps of one shape, compiled once and used for every token.

Attention looks at a whole bucket of keys behind a mask, so that a step is compiled once per
bucket and not once per token. The compiled function belongs to the block and to the thread it
was made in, as compiled functions do in MLX: later pictures find it ready.
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
    """Rows of a batch to those that the block runs on, and back. Hashable: steps with equal ends
    are the same."""

    def rows(self, previous: mx.array) -> mx.array: ...

    def combine(self, block: Block, a: mx.array, b: mx.array, t: int | mx.array) -> Pair: ...


class CompiledSteps:
    """Runs ``Block.fixed_step`` for n tokens at a time on a block's state."""

    def __init__(self, block: Block, state: BlockState, n: int, ends: Ends):
        """``ends``: what comes before and after the block, in the same graph."""
        self.block, self.state, self.n, self.ends = block, state, n, ends
        self.capacity = state.caches[0].capacity
        self.arrays = block.step_arrays(state)

    def takes(self, n: int, t: int) -> bool:
        return n == self.n and t >= 1 and all(c.keys is not None for c in self.state.caches)

    def __call__(self, previous: mx.array, t: int) -> tuple[mx.array, mx.array]:
        """sigma and b (B, n, D), guided, as from ``Conditional.affine``."""
        end = self.state.prefix + t + self.n
        visible = min(-(-end // BUCKET) * BUCKET, self.capacity)
        step = self._step(visible)
        caches = [(c.keys, c.values) for c in self.state.caches]
        for cache in self.state.caches:
            cache.keys = cache.values = None  # or the step could not write in place
        sigma, b, caches = step(previous, mx.array(t), self.arrays, caches)
        for cache, (keys, values) in zip(self.state.caches, caches, strict=True):
            cache.keys, cache.values = keys, values
        return sigma, b

    def _step(self, visible: int) -> Callable[..., Any]:
        steps: dict[Any, Callable[..., Any]] = self.block.__dict__.setdefault("_steps", {})
        key = (threading.get_ident(), self.state.prefix, visible, self.n, self.ends)
        if key not in steps:
            # The block keeps the step, so the step must not keep the block: a cycle would hold the
            # weights until Python's collector runs, which nothing on a GPU makes it do.
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
