"""The step of a block, from the token before to sigma and b, for functions that MLX traces.

On a CPU it has the numbers of the sequential sampler to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from ..device.products import kept_type
from ..flow import Block
from ..flow.cache import GROUP
from ..flow.step import StepLayer, Turn, by_number
from .plan import Plan

Pair = tuple[mx.array, mx.array]


@dataclass(frozen=True)
class Place:
    """Where in the sequence a step is."""

    index: mx.array  # (1,)
    turn: Turn | None
    mask: mx.array | None  # (1, visible)
    visible: int  # keys that attention looks at


class Steps:
    """The steps of one block with its guidance. ``t``, the number of the token, is known when the
    function is traced (int), or only when it runs (array)."""

    def __init__(self, plan: Plan, index: int, block: Block) -> None:
        self.plan, self.block, self.guide = plan, block, plan.guide(index)
        self.rows = plan.batch * (2 if self.guide.guided else 1)
        self.has_text = plan.has_text and block.config.conditioned
        self.prefix = plan.flow.text_length if self.has_text else 0
        self.capacity = self.prefix + plan.grid.tokens
        config = block.config
        self.layers = [
            StepLayer(layer, config.position == "sequence", same=True) for layer in block.layers
        ]
        self.cache_shape = (self.rows, config.kv_heads, self.capacity, config.head_dim)
        self.kept = kept_type(block.layers[0].attention.qkv)
        rotation = block.rotation(plan.grid, self.prefix)
        self.cos: mx.array | None = None
        self.sin: mx.array | None = None
        if rotation is not None:
            self.cos, self.sin = by_number(rotation)
        self.table = block.position_table() if "pos_embed" in block else None

    def constants(self) -> list[mx.array]:
        """What is not a weight, to be evaluated before tracing, so that all traces share it."""
        made = [a for layer in self.layers for a in layer.arrays()]
        return made + [a for a in (self.cos, self.sin, self.table) if a is not None]

    def empty(self) -> list[Pair]:
        """Caches without text."""
        nothing = mx.zeros(self.cache_shape, self.kept)
        return [(nothing, nothing) for _ in self.layers]

    def start(self, previous: mx.array, t: int | mx.array, offset: mx.array | None) -> mx.array:
        """The residual stream (rows, channels) from the token before (B, 1, D). ``offset``: the
        class embedding (rows, 1, channels)."""
        if self.plan.flow.sos and isinstance(t, int):
            first = mx.broadcast_to(self.block.sos_embed, previous.shape)
            previous = first if t == 0 else previous
        elif self.plan.flow.sos:
            previous = mx.where(t == 0, self.block.sos_embed, previous)
        hidden = self.block.inputs(self.guide.rows(previous))
        if self.table is not None:
            hidden = hidden + self._row(self.table, self._image_place(t))
        if offset is not None:
            hidden = hidden + offset
        return hidden.reshape(self.rows, -1)

    def at(self, t: int | mx.array) -> Place:
        """What all layers need of the place of the input that gives token t."""
        place = self.prefix + self._image_place(t)
        cos, sin = (None if a is None else self._row(a, place) for a in (self.cos, self.sin))
        turn = self.layers[0].turn(cos, sin, None)
        if isinstance(place, mx.array):
            index = place.reshape(1)
            return Place(index, turn, mx.arange(self.capacity)[None] <= index, self.capacity)
        visible = min(-(-(place + 1) // GROUP) * GROUP, self.capacity)
        mask = None if visible == place + 1 else mx.arange(visible)[None] <= place
        return Place(mx.array([place]), turn, mask, visible)

    def layer(self, j: int, hidden: mx.array, place: Place, cache: Pair) -> tuple[mx.array, Pair]:
        """Layer j: the residual stream, and the cache with the keys and values of the place."""
        return self.layers[j](
            hidden, self.rows, place.turn, place.mask, cache, place.index, place.visible
        )

    def finish(self, hidden: mx.array, t: int | mx.array) -> Pair:
        """sigma and b (B, 1, D) of token t, guided."""
        a, b = self.block.affine(hidden.reshape(self.rows, 1, -1))
        if not self.plan.flow.sos:  # token 0 depends on nothing
            a, b = (mx.where(mx.array(t) == 0, 0.0, x) for x in (a, b))
        return self.guide.combine(self.block, a, b, t)

    def _image_place(self, t: int | mx.array) -> int | mx.array:
        if self.plan.flow.sos:
            return t
        return max(t - 1, 0) if isinstance(t, int) else mx.maximum(t - 1, 0)

    @staticmethod
    def _row(table: mx.array, place: int | mx.array) -> mx.array:
        """One row (1, n) of a table."""
        if isinstance(place, int):
            return table[place : place + 1]
        return mx.take(table, place.reshape(1), axis=0)
