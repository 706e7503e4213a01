"""Large flows: every block in pieces, with the loops over blocks, tokens and layers in the host.

All pieces of a block are in one file and share its weights. One layer at a time has few inputs,
whatever the depth of the model, and bounds the memory and the time of an evaluation.

    begin               caption, null -> keys and values of the text in every layer
    step.start          previous token, number t of the token -> residual stream
    step.layer<j>       one layer, with its keys and values
    step.finish         -> sigma and b of token t, guided: the token is sigma * noise + b
    certificate.*       sigma and b of all tokens in one pass, to measure how exact they are
    forward.*           data to noise, without guidance: the first half of the score
    backward.*          the gradient through the same layers: the second half
"""

from __future__ import annotations

import mlx.core as mx

from ..exact.layerwise import affine_of
from ..flow import Block, Flow
from ..flow.layers import Layer
from ..flow.rope import Rotation
from .functions import Array, Function, Run
from .mathematics import begun
from .one_function import context_inputs
from .plan import Plan, own_context
from .steps import Steps


class BlockPieces:
    """The functions of one block of a flow."""

    def __init__(self, plan: Plan, flow: Flow, index: int, block: Block) -> None:
        self.plan, self.flow, self.index, self.block = plan, flow, index, block
        self.name, self.steps = f"block{index}", Steps(plan, index, block)
        self.guide, self.text = self.steps.guide, self.steps.has_text
        self.prefix, self.rows = self.steps.prefix, self.steps.rows
        self.rotation = block.rotation(plan.grid, self.prefix)
        table = [] if self.rotation is None else [self.rotation.cos, self.rotation.sin]
        mx.eval(table, self.steps.constants())
        self.cache = Array("keys", self.steps.cache_shape, self.steps.kept)

    def settings(self) -> dict[str, object]:
        """What the host must know of the block's loop."""
        return {
            "block": self.index,
            "layers": len(self.block.layers),
            "flip": self.block.config.flip,
            "begin": self.text,
            "cache": {"shape": list(self.cache.shape), "dtype": self.cache.to_dict()["dtype"]},
        }

    def functions(self, score: bool) -> list[Function]:
        """All functions of the block; ``score``: with those for denoising by the score."""
        return [
            *self._begin(),
            *self._step(),
            *self._certificate(),
            *(self._score() if score else []),
        ]

    def _function(
        self, name: str, inputs: tuple[Array, ...], outputs: tuple[str, ...], run: Run
    ) -> Function:
        return Function(f"{self.name}.{name}", inputs, outputs, run)

    def _context(self, guided: bool) -> tuple[Array, ...]:
        """What a pass over all tokens takes beside them."""
        if self.plan.has_text and not self.text:
            return ()
        return context_inputs(self.plan, guided and self.guide.guided)

    @property
    def _labels(self) -> tuple[Array, ...]:
        return () if self.plan.has_text else context_inputs(self.plan, False)

    # One token after another

    def _begin(self) -> list[Function]:
        if not self.text:
            return []

        def begin(**given: mx.array) -> list[mx.array]:
            context, rows = self.plan.context(self.index, **given)
            caches = begun(self.block, self.plan, context, rows)
            return [array for cache in caches for array in cache]

        layers = range(len(self.block.layers))
        outputs = tuple(f"{kind}{j}" for j in layers for kind in ("keys", "values"))
        return [self._function("begin", self._context(True), outputs, begin)]

    def _step(self) -> list[Function]:
        number = Array("t", (), mx.int32)
        token = Array("previous", (self.plan.batch, 1, self.plan.flow.token_channels))
        hidden = Array("hidden", (self.rows, self.block.config.channels))
        values = Array("values", self.cache.shape, self.cache.dtype)

        def finish(hidden: mx.array, t: mx.array) -> list[mx.array]:
            return list(self.steps.finish(hidden, t))

        functions = [
            self._function("step.start", (token, number, *self._labels), ("hidden",), self._start),
            self._function("step.finish", (hidden, number), ("sigma", "b"), finish),
        ]
        for j in range(len(self.block.layers)):
            inputs, outputs = (hidden, number, self.cache, values), ("hidden", "keys", "values")
            run = self._layer_step(j)
            functions.append(self._function(f"step.layer{j}", inputs, outputs, run))
        return functions

    def _start(
        self, previous: mx.array, t: mx.array, labels: mx.array | None = None
    ) -> list[mx.array]:
        given = {} if labels is None else {"labels": labels}
        context = self.plan.context(self.index, **given)[0]
        return [self.steps.start(previous, t, self.block.class_offset(context))]

    def _layer_step(self, j: int) -> Run:
        def step(hidden: mx.array, t: mx.array, keys: mx.array, values: mx.array) -> list[mx.array]:
            hidden, cache = self.steps.layer(j, hidden, self.steps.at(t), (keys, values))
            return [hidden, *cache]

        return step

    # All tokens in one pass

    def _all_tokens(self, name: str, rows: int, guided: bool) -> list[Function]:
        """``start`` and the layers of a pass with the context of sampling or of scoring."""

        def start(tokens: mx.array, **given: mx.array) -> list[mx.array]:
            if guided:
                context, inputs = self.plan.all_rows(self.index, **given), self.guide.rows(tokens)
            else:
                context, inputs = (own_context(self.flow, **given) if given else None), tokens
            return [self.block.start(inputs, self.plan.grid, context)[0]]

        def through(layer: Layer) -> Run:
            return lambda hidden: [layer(hidden, self._table, "causal")]

        inputs = (self._tokens("tokens"), *self._context(guided))
        functions = [self._function(f"{name}.start", inputs, ("hidden",), start)]
        for j, layer in enumerate(self.block.layers):
            hidden = (self._hidden("hidden", rows),)
            functions.append(
                self._function(f"{name}.layer{j}", hidden, ("hidden",), through(layer))
            )
        return functions

    def _certificate(self) -> list[Function]:
        def finish(hidden: mx.array) -> list[mx.array]:
            a, b = self.block.finish(hidden, self.prefix, self.plan.grid.tokens)
            return list(self.guide.combine(self.block, a, b, 0))

        hidden = (self._hidden("hidden", self.rows),)
        return [
            *self._all_tokens("certificate", self.rows, True),
            self._function("certificate.finish", hidden, ("sigma", "b"), finish),
        ]

    def _score(self) -> list[Function]:
        batch, block = self.plan.batch, self.block

        def finish(hidden: mx.array, tokens: mx.array) -> list[mx.array]:
            return [affine_of(block, hidden, tokens, self.prefix)[0]]

        def last(hidden: mx.array, tokens: mx.array, slope: mx.array) -> list[mx.array]:
            def both(hidden: mx.array, tokens: mx.array) -> list[mx.array]:
                return list(affine_of(block, hidden, tokens, self.prefix))

            return list(mx.vjp(both, [hidden, tokens], [slope, mx.array(1.0)])[1])

        def through(layer: Layer) -> Run:
            def one(hidden: mx.array) -> mx.array:
                return layer(hidden, self._table, "causal")

            return lambda hidden, slope: list(mx.vjp(one, [hidden], [slope])[1])

        def first(
            tokens: mx.array, slope: mx.array, direct: mx.array, **given: mx.array
        ) -> list[mx.array]:
            context = own_context(self.flow, **given) if given else None

            def start(u: mx.array) -> mx.array:
                return block.start(u, self.plan.grid, context)[0]

            return [direct + mx.vjp(start, [tokens], [slope])[1][0]]

        hidden, inner = self._hidden("hidden", batch), self._hidden("slope", batch)
        tokens, direct, out = (self._tokens(name) for name in ("tokens", "direct", "slope"))
        functions = [
            *self._all_tokens("forward", batch, False),
            self._function("forward.finish", (hidden, tokens), ("tokens",), finish),
            self._function("backward.finish", (hidden, tokens, out), ("slope", "direct"), last),
        ]
        for j, layer in enumerate(block.layers):
            functions.append(
                self._function(f"backward.layer{j}", (hidden, inner), ("slope",), through(layer))
            )
        inputs = (tokens, inner, direct, *self._context(False))
        functions.append(self._function("backward.start", inputs, ("slope",), first))
        return functions

    @property
    def _table(self) -> Rotation | None:
        """The rotations of a pass over all tokens."""
        places = self._places
        return None if self.rotation is None else self.rotation.rows(0, places)

    @property
    def _places(self) -> int:
        """Places of a pass over all tokens: without a first token of its own, one fewer."""
        tokens = self.plan.grid.tokens
        return self.prefix + (tokens if self.plan.flow.sos or tokens == 1 else tokens - 1)

    def _tokens(self, name: str) -> Array:
        return Array(name, (self.plan.batch, self.plan.grid.tokens, self.plan.flow.token_channels))

    def _hidden(self, name: str, rows: int) -> Array:
        return Array(name, (rows, self._places, self.block.config.channels))
