"""Steps of one shape, compiled once and used for every token.

Attention looks at a whole bucket of keys behind a mask, so that a step is compiled once per
bucket and not once per token. The compiled function belongs to the block and to the thread it
was made in, as compiled functions do in MLX: later pictures find it ready.
"""

from __future__ import annotations

import threading
import weakref

import mlx.core as mx

from ..flow import Block, BlockState

BUCKET = 256  # keys


class CompiledSteps:
    """Runs ``Block.fixed_step`` for n tokens at a time on a block's state."""

    def __init__(self, block: Block, state: BlockState, n: int):
        self.block, self.state, self.n = block, state, n
        self.capacity = state.caches[0].capacity
        self.arrays = {}
        if state.rotation is not None:
            self.arrays |= {"cos": state.rotation.cos, "sin": state.rotation.sin}
        if "pos_embed" in block:
            self.arrays["table"] = block.position_table()
        if state.offset is not None:
            self.arrays["offset"] = state.offset
        if state.sharpness is not None:
            self.arrays["sharpness"] = state.sharpness

    def takes(self, n: int, t: int) -> bool:
        return n == self.n and t >= 1 and all(c.keys is not None for c in self.state.caches)

    def __call__(self, previous: mx.array, t: int) -> tuple[mx.array, mx.array]:
        """a and b (B, n, D) as from ``Block.conditionals``."""
        end = self.state.prefix + t + self.n
        visible = min(-(-end // BUCKET) * BUCKET, self.capacity)
        step = self._step(visible)
        caches = [(c.keys, c.values) for c in self.state.caches]
        for cache in self.state.caches:
            cache.keys = cache.values = None  # or the step could not write in place
        a, b, caches = step(previous, mx.array(t), self.arrays, caches)
        for cache, (keys, values) in zip(self.state.caches, caches, strict=True):
            cache.keys, cache.values = keys, values
        return a, b

    def _step(self, visible: int):
        steps = self.block.__dict__.setdefault("_steps", {})
        key = (threading.get_ident(), self.state.prefix, visible, self.n)
        if key not in steps:
            # The block keeps the step, so the step must not keep the block: a cycle would hold the
            # weights until Python's collector runs, which nothing on a GPU makes it do.
            block, prefix = weakref.ref(self.block), self.state.prefix

            def fixed(*arguments):
                return block().fixed_step(*arguments, prefix=prefix, visible=visible)

            steps[key] = mx.compile(fixed)
        return steps[key]
