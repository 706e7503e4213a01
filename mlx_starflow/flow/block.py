"""An autoregressive affine block, for both STARFlow and TarFlow.

A block reads the tokens in raster order, or in reverse. In this order a_t and b_t are the outputs
of a causal transformer for the tokens before t, and sigma_t is a positive function of a_t:

    data to noise   v_t = (u_t - b_t) / sigma_t      log-determinant -log sigma_t per number
    noise to data   u_t = sigma_t v_t + b_t

The block computes a and b: for all tokens in one parallel pass (``parameters_of``), or for a few
tokens with a KV cache (``begin``, ``conditionals``). The loops over tokens are in the samplers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ..config import BlockConfig, FlowConfig
from ..device.pieces import Pieces, evaluate
from ..device.products import adapted, kept_type, linear
from ..device.shared import Share
from ..errors import UsageError
from .cache import KVCache, make_cache
from .grid import Grid, reverse, sequence_angles, spatial_angles
from .layers import Layer, RMSNorm
from .rope import Rotation, rotation
from .step import StepLayer, by_number

SOFTPLUS_SHIFT = 0.541324854612918  # softplus(SOFTPLUS_SHIFT) = 1
# Sequences of more than LONG places go through a layer CHUNK places at a time: the activations of a
# long clip's tens of thousands would need gigabytes, and evaluating them at once takes seconds.
LONG, CHUNK = 4096, 1024


@dataclass
class BlockState:
    """The state of a block between calls of ``conditionals``."""

    prefix: int  # number of text tokens in the cache
    rotation: Rotation | None  # of all positions, text first
    offset: mx.array | None  # class embedding (B, 1, channels), added to every input
    sharpness: mx.array | None  # (B, 1, 1, 1), multiplies the attention scale per row
    caches: list[KVCache] = field(default_factory=list)

    def arrays(self) -> list[mx.array]:
        """All keys and values in the caches."""
        return [a for c in self.caches for a in c.arrays()]


def layer_operations(
    config: BlockConfig, batch: int, places: int, keys: int | None = None
) -> float:
    """Floating-point operations of one layer for a batch of sequences of ``places`` tokens, each of
    which attends to ``keys`` tokens; None: to ``places``."""
    inner, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    mlp = (3 if config.gated_mlp else 2) * config.mlp_channels
    products = config.channels * (2 * inner + 2 * kv + mlp)
    return batch * places * (2.0 * products + 4.0 * inner * (places if keys is None else keys))


def through_layer(
    layer: Layer,
    hidden: mx.array,
    table: Rotation | None,
    cache: KVCache | None,
    place: int,
    sharpness: mx.array | None,
) -> mx.array:
    """One causal layer on hidden (B, n, channels), which begins at ``place``. More than LONG places
    are computed CHUNK at a time, with a temporary cache if ``cache`` is None."""
    n = hidden.shape[1]
    if n <= LONG:
        return layer(hidden, table, "causal", cache, place, sharpness)
    cache = KVCache(n) if cache is None else cache
    done = []
    for start in range(0, n, CHUNK):
        rows = None if table is None else table.rows(start, start + CHUNK)
        part = hidden[:, start : start + CHUNK]
        done.append(layer(part, rows, "causal", cache, place + start, sharpness))
        evaluate(done[-1], *cache.arrays())
    return mx.concatenate(done, axis=1)


class Network(nn.Module):
    """proj_in, layers, final norm and proj_out: the base class of a block and the denoiser."""

    share: Share | None = None  # a rank's share of its layers; None: all of them
    split: Any = None  # a Split by captions; None: one rank evaluates all rows

    def __init__(self, config: BlockConfig, flow: FlowConfig, outputs: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self.config, self.flow = config, flow
        self.proj_in = nn.Linear(flow.token_channels, config.channels)
        if config.conditioned and config.project_text and flow.text_channels:
            self.proj_txt = nn.Linear(flow.text_channels, config.channels)
        self.layers = [Layer(config) for _ in range(config.layers)]
        if config.final_norm:
            self.final_norm = RMSNorm(config.channels)
        self.proj_out = nn.Linear(config.channels, outputs)

    def text(self, context: mx.array | None) -> mx.array | None:
        """Text features (B, L, D) -> tokens (B, L, channels) that stand before the image tokens;
        None for a network without text."""
        if not self.config.conditioned or self.flow.text_channels == 0:
            return None
        given = cast(mx.array, context)
        if "proj_txt" in self:
            return linear(self.proj_txt, given)
        return given.astype(mx.float32)

    def rotation(self, grid: Grid, text_length: int) -> Rotation | None:
        """The rotary table of all text_length + T positions; None with learned positions."""
        if self.config.position == "table":
            return None
        if self.config.position == "sequence":
            return rotation(sequence_angles(text_length + grid.tokens, self.config.head_dim), True)
        has_text = self.flow.text_channels > 0
        angles = spatial_angles(
            grid, self.config.head_dim, self.flow.position_size, text_length, has_text
        )
        return rotation(angles, False)

    def outputs(self, hidden: mx.array) -> mx.array:
        """Residual stream (B, n, channels) -> outputs (B, n, outputs), both float32."""
        if "final_norm" in self:
            hidden = self.final_norm(hidden)
        return adapted(self.proj_out, hidden, self.proj_out(hidden))

    def inputs(self, tokens: mx.array) -> mx.array:
        """Tokens (B, n, D) of any dtype -> residual stream (B, n, channels) float32."""
        tokens = tokens.astype(mx.float32)
        return adapted(self.proj_in, tokens, self.proj_in(tokens))


class Block(Network):
    """An autoregressive affine block with at least one layer."""

    def __init__(self, config: BlockConfig, flow: FlowConfig):
        d = flow.token_channels
        super().__init__(config, flow, d if flow.scale == "unit" else 2 * d)
        if flow.sos:
            self.sos_embed = mx.zeros((d,))
        if config.position == "table":
            self.pos_embed = mx.zeros((flow.grid_size * flow.grid_size, config.channels))
        if flow.num_classes and config.conditioned:
            self.class_embed = mx.zeros((flow.num_classes, config.channels))

    # From outputs to sigma and b

    def sigma(self, a: mx.array) -> mx.array:
        """The positive scale sigma of the affine map, from a, the first half of the outputs."""
        if self.flow.scale == "softplus":
            return mx.logaddexp(a + SOFTPLUS_SHIFT, 0.0)
        return mx.exp(a)

    def log_sigma(self, a: mx.array) -> mx.array:
        """log sigma(a)."""
        return mx.log(self.sigma(a)) if self.flow.scale == "softplus" else a

    def affine(self, hidden: mx.array) -> tuple[mx.array, mx.array]:
        """a and b (B, n, D) from the residual stream (B, n, channels) after the layers."""
        out = self.outputs(hidden)
        if self.flow.soft_clip:
            out = self.flow.soft_clip * mx.tanh(out / self.flow.soft_clip)
        if self.flow.scale == "unit":
            return mx.zeros_like(out), out
        a, b = mx.split(out, 2, axis=-1)
        return a, b

    # One parallel pass

    def parameters_of(
        self,
        u: mx.array,
        grid: Grid,
        context: mx.array | None,
        checkpoint: bool = False,
        sharpness: mx.array | None = None,
    ) -> tuple[mx.array, mx.array]:
        """a and b (B, T, D) of all tokens u (B, T, D), in the block's order, in one pass.

        ``checkpoint``: recompute the activations of each layer in the backward pass instead of
        storing them. ``sharpness`` (B, 1, 1, 1): multiplies the attention scale per row. A large
        pass is evaluated in pieces.
        """
        hidden, prefix, table = self.start(u, grid, context)
        pieces, work = Pieces(), layer_operations(self.config, *hidden.shape[:2])
        for layer in self.layers:
            if checkpoint:
                run = nn.utils.checkpoint(layer)
                hidden = run(hidden, table, "causal", sharpness=sharpness)
            else:
                hidden = through_layer(layer, hidden, table, None, 0, sharpness)
            pieces.add(work, hidden)
        pieces.end(hidden)
        return self.finish(hidden, prefix, u.shape[1])

    def start(
        self, u: mx.array, grid: Grid, context: mx.array | None
    ) -> tuple[mx.array, int, Rotation | None]:
        """The inputs of the layers in a parallel pass: the residual stream (B, S, channels), the
        number of text tokens at its start, and the rotary table of its S positions."""
        inputs, text = self._shift(u), self.text(context)
        prefix = 0 if text is None else text.shape[1]
        hidden = self._embed(inputs, grid, 0, self.class_offset(context))
        if text is not None:
            hidden = mx.concatenate([text, hidden], axis=1)
        table = self.rotation(grid, prefix)
        return hidden, prefix, None if table is None else table.rows(0, hidden.shape[1])

    def finish(self, hidden: mx.array, prefix: int, tokens: int) -> tuple[mx.array, mx.array]:
        """a and b (B, T, D) of T ``tokens`` from the residual stream after the layers of a parallel
        pass."""
        a, b = self.affine(hidden[:, prefix:])
        if self.flow.sos:
            return a, b
        last = tokens - 1  # the outputs for a single token are not used
        return self._zero_first(a[:, :last]), self._zero_first(b[:, :last])

    def _shift(self, u: mx.array) -> mx.array:
        if not self.flow.sos:
            return u[:, :-1] if u.shape[1] > 1 else u
        first = mx.broadcast_to(self.sos_embed, (u.shape[0], 1, u.shape[2]))
        return mx.concatenate([first, u[:, :-1]], axis=1)

    @staticmethod
    def _zero_first(a: mx.array) -> mx.array:
        return mx.pad(a, [(0, 0), (1, 0), (0, 0)])

    def _embed(self, inputs: mx.array, grid: Grid, place: int, offset: mx.array | None) -> mx.array:
        """Inputs (B, n, D) at image positions from ``place`` on -> residual stream (B, n,
        channels)."""
        hidden = self.inputs(inputs)
        if "pos_embed" in self:
            if grid.tokens != self.pos_embed.shape[0]:
                raise UsageError(
                    f"This model has a learned table of {self.pos_embed.shape[0]} positions and "
                    f"cannot take a grid of {grid.height} x {grid.width} tokens."
                )
            hidden = hidden + self.position_table()[place : place + inputs.shape[1]]
        if offset is not None:
            hidden = hidden + offset
        return hidden

    def position_table(self) -> mx.array:
        """Learned positions (T, channels) in the block's order."""
        return reverse(self.pos_embed[None])[0] if self.config.flip else self.pos_embed

    def class_offset(self, labels: mx.array | None) -> mx.array | None:
        """Class embedding (B, 1, channels) of labels (B,); for the label -1 the mean over all
        classes. None for a block without class embedding."""
        if "class_embed" not in self:
            return None
        mean = self.class_embed.mean(axis=0)[None, None]
        if labels is None:
            return mean
        chosen = self.class_embed[mx.maximum(labels, 0)][:, None]
        return mx.where((labels < 0)[:, None, None], mean, chosen)

    # A few tokens at a time

    def begin(
        self,
        grid: Grid,
        context: mx.array | None,
        sharpness: mx.array | None = None,
        rows: mx.array | None = None,
        bits: int | None = None,
    ) -> BlockState:
        """Start a pass with a KV cache: computes the keys and values of the text.

        ``rows`` (B,): the row of the context that each row of the batch uses. Rows that share one
        (the null caption, for example) then share its computation. None: row i uses row i.
        ``bits``: bits per element of the cache, 16, 8 or 4; None: those of the layers' dtype.
        """
        text = self.text(context)
        prefix = 0 if text is None else text.shape[1]
        state = BlockState(
            prefix,
            self.rotation(grid, prefix),
            self.class_offset(context) if self.flow.num_classes else None,
            sharpness,
            [
                make_cache(prefix + grid.tokens, bits, kept_type(layer.attention.qkv))
                for layer in self.layers
            ],
        )
        if text is not None and rows is None:
            self._advance(text, state, 0)
        elif text is not None and rows is not None:
            shared = None if sharpness is None else sharpness[: text.shape[0]]
            once = dataclasses.replace(
                state, sharpness=shared, caches=[KVCache(prefix) for _ in self.layers]
            )
            self._advance(text, once, 0)
            for cache, short in zip(state.caches, once.caches, strict=True):
                cache.fill(short, rows)
        return state

    def _advance(self, hidden: mx.array, state: BlockState, place: int) -> mx.array:
        table = state.rotation
        if table is not None:
            table = table.rows(place, place + hidden.shape[1])
        batch, n = hidden.shape[:2]
        pieces, work = Pieces(), layer_operations(self.config, batch, n, place + n)
        for layer, cache in zip(self.layers, state.caches, strict=True):
            hidden = through_layer(layer, hidden, table, cache, place, state.sharpness)
            pieces.add(work, hidden, *cache.arrays())
        pieces.end(hidden)
        return hidden

    def conditionals(
        self, state: BlockState, previous: mx.array, t: int, grid: Grid
    ) -> tuple[mx.array, mx.array]:
        """a and b (B, n, D) of tokens t ... t + n - 1, in the block's order.

        ``previous`` (B, n, D): the tokens t - 1 ... t + n - 2; the first is ignored at t = 0.
        Their keys and values overwrite the cache from that position on.
        """
        batch, n, d = previous.shape
        if self.flow.sos:
            place, inputs = t, previous
            if t == 0:
                first = mx.broadcast_to(self.sos_embed, (batch, 1, d))
                inputs = mx.concatenate([first, previous[:, 1:]], axis=1)
        else:
            place, inputs = max(t - 1, 0), previous[:, 1:] if t == 0 else previous
            if inputs.shape[1] == 0:
                nothing = mx.zeros((batch, 1, d))
                return nothing, nothing
        hidden = self._embed(inputs, grid, place, state.offset)
        a, b = self.affine(self._advance(hidden, state, state.prefix + place))
        if not self.flow.sos and t == 0:
            return self._zero_first(a), self._zero_first(b)
        return a, b

    def step_layers(self) -> list[StepLayer]:
        """The layers for ``fixed_step``, to be made once for a compiled function."""
        layers = [StepLayer(layer, self.config.position == "sequence") for layer in self.layers]
        mx.eval([a for layer in layers for a in layer.arrays()])
        return layers

    def step_arrays(self, state: BlockState) -> dict[str, mx.array]:
        """What ``fixed_step`` takes of a state beside its caches."""
        arrays: dict[str, mx.array] = {}
        if state.rotation is not None:
            arrays["cos"], arrays["sin"] = by_number(state.rotation)
        if "pos_embed" in self:
            arrays["table"] = self.position_table()
        if state.offset is not None:
            arrays["offset"] = state.offset
        if state.sharpness is not None:
            arrays["sharpness"] = state.sharpness
        return arrays

    def fixed_step(
        self,
        layers: list[StepLayer],
        previous: mx.array,
        t: mx.array,
        arrays: dict[str, mx.array],
        caches: list[tuple[mx.array, mx.array]],
        prefix: int,
        visible: int,
    ) -> tuple[mx.array, mx.array, list[tuple[mx.array, mx.array]]]:
        """``conditionals`` with fixed shapes, for compilation: t >= 1 is an array, and the state
        is passed and returned as arrays.

        ``layers``: of ``step_layers``. ``arrays``: of ``step_arrays``. ``visible``: keys that
        attention looks at, at least prefix + t + n. Returns a, b and the new caches.
        """
        batch, n, _ = previous.shape
        places = (t if self.flow.sos else t - 1) + mx.arange(n)
        hidden = self.inputs(previous)
        if "table" in arrays:
            hidden = hidden + mx.take(arrays["table"], places, axis=0)
        if "offset" in arrays:
            hidden = hidden + arrays["offset"]
        places = prefix + places
        cos, sin = (
            mx.take(arrays[k], places, axis=0) if k in arrays else None for k in ("cos", "sin")
        )
        turned = layers[0].turn(cos, sin, arrays.get("sharpness"))
        mask = mx.arange(visible) <= places[:, None]
        hidden = hidden.reshape(batch * n, -1)
        written = []
        for layer, cache in zip(layers, caches, strict=True):
            hidden, cache = layer(hidden, batch, turned, mask, cache, places[:1], visible)
            written.append(cache)
        a, b = self.affine(hidden.reshape(batch, n, -1))
        return a, b, written
