"""The loss, -log p(x | context) in nats, and its gradient.

The differentiated loss is summed over pictures and dimensions, not averaged: intermediate gradients
are then large enough for 16-bit matrix products. The caller divides the result.

``in_layers`` is gradient checkpointing: it keeps only the input of each layer, computes every layer
again in the backward pass, and evaluates its gradient before that of the next layer. Calling
``mx.checkpoint`` on the layers of one graph would save no memory, because MLX does not have to
finish the gradient of one layer before it starts another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from ..exact.likelihood import log_prob, normal_log_prob
from ..flow import Block, Context, Flow
from ..flow.grid import Grid, grid_of, patchify
from ..flow.order import Order
from ..flow.rope import Rotation
from .parameters import Arrays, Trained

Passed = tuple[mx.array, Arrays]  # the sum of -log p in nats, and its gradient by name


def gradient(
    trained: Trained,
    arrays: Arrays,
    x: mx.array,
    context: Context,
    checkpoint: bool = False,
    key: mx.array | None = None,
) -> Passed:
    """The loss in nats of noised x (B, H, W, C), summed over the batch, and its gradient with
    respect to ``arrays``.

    ``checkpoint``: use ``in_layers``. ``key``: random key of the dropout, None: no dropout.
    Afterwards the flow holds ``arrays``, without dropout.
    """
    context = trained.flow.check_context(context, x.shape[0])
    try:
        passed = (in_layers if checkpoint else _at_once)(trained, arrays, x, context, key)
        mx.eval(passed)
        return passed
    finally:
        trained.put(arrays)  # replaces the tracers of mx.value_and_grad in the flow


def _at_once(
    trained: Trained, arrays: Arrays, x: mx.array, context: Context, key: mx.array | None
) -> Passed:
    def loss(own: Arrays) -> mx.array:
        trained.put(own, key)
        return -log_prob(trained.flow, x, context).sum()

    value, slopes = mx.value_and_grad(loss)(arrays)
    return value, slopes


@dataclass
class _Stage:
    """A part of a block's forward pass: its function, its inputs and the arrays it depends on."""

    run: Callable[..., list[mx.array]]
    inputs: list[mx.array]
    own: Arrays


@dataclass
class _Passed:
    """The stages of a block after its forward pass."""

    order: Order
    start: _Stage
    layers: list[_Stage]
    end: _Stage


def in_layers(
    trained: Trained, arrays: Arrays, x: mx.array, context: Context, key: mx.array | None
) -> Passed:
    """The same loss and gradient as ``mx.value_and_grad``, computed one layer at a time."""
    flow = trained.flow
    trained.put(arrays, key)
    grid = grid_of(x, flow.config)
    u = patchify(x.astype(mx.float32), flow.config)
    blocks: list[_Passed] = []
    logdet = mx.zeros((x.shape[0],))
    for index, block in enumerate(flow.blocks):
        if isinstance(block, Block):
            passed, u, log_scale = _forward(flow, index, u, grid, context, arrays)
            blocks.append(passed)
            logdet = logdet + log_scale
    value = -(normal_log_prob(u) + logdet).sum()
    slope, slopes = u, Arrays()
    while blocks:
        slope = _backward(trained, blocks.pop(), slope, slopes, key)
    # The loss may not depend on some arrays: those for text, if every caption is dropped.
    return value, {name: slopes.get(name, mx.zeros_like(a)) for name, a in arrays.items()}


def _forward(
    flow: Flow, index: int, u: mx.array, grid: Grid, context: Context, arrays: Arrays
) -> tuple[_Passed, mx.array, mx.array]:
    block, order = cast(Block, flow.blocks[index]), flow.order(index, grid)
    path = f"blocks.{index}."
    inner = {n: a for n, a in arrays.items() if n.startswith(path)}
    ending = (f"{path}final_norm.", f"{path}proj_out.")
    own_end = {n: a for n, a in inner.items() if n.startswith(ending)}
    own_start = {
        n: a for n, a in inner.items() if n not in own_end and not n.startswith(f"{path}layers.")
    }
    u = order.into(u)
    hidden, prefix, table = block.start(u, order.grid, context)
    mx.eval(hidden)
    start = _Stage(lambda u: [block.start(u, order.grid, context)[0]], [u], own_start)
    layers = []
    for number, layer in enumerate(block.layers):
        own = {n: a for n, a in inner.items() if n.startswith(f"{path}layers.{number}.")}
        layers.append(_Stage(_layer(layer, table), [hidden], own))
        hidden = layers[-1].run(hidden)[0]
        mx.eval(hidden)

    def end(hidden: mx.array, u: mx.array) -> list[mx.array]:
        a, b = block.finish(hidden, prefix, u.shape[1])
        return [(u - b) / block.sigma(a), -block.log_sigma(a).sum()]

    last = _Stage(end, [hidden, u], own_end)
    a, b = block.finish(hidden, prefix, u.shape[1])
    v, log_scale = (u - b) / block.sigma(a), -block.log_sigma(a)
    log_scale = order.unfold(log_scale).sum(axis=(1, 2))
    mx.eval(v, log_scale)
    return _Passed(order, start, layers, last), order.back(v), log_scale


def _layer(layer: Callable[..., mx.array], table: Rotation | None) -> Callable[..., list[mx.array]]:
    return lambda hidden: [layer(hidden, table, "causal")]


def _backward(
    trained: Trained, done: _Passed, slope: mx.array, slopes: Arrays, key: mx.array | None
) -> mx.array:
    """The gradient of the loss with respect to a block's input, given that with respect to its
    output. Adds the gradients of the block's arrays to ``slopes``."""
    slope = done.order.into(slope)
    inner, direct = _through(trained, done.end, [slope, mx.array(-1.0)], slopes, key)
    while done.layers:
        (inner,) = _through(trained, done.layers.pop(), [inner], slopes, key)
    (through,) = _through(trained, done.start, [inner], slopes, key)
    slope = direct + through
    mx.eval(slope)
    return done.order.back(slope)


def _through(
    trained: Trained, stage: _Stage, slope: list[mx.array], slopes: Arrays, key: mx.array | None
) -> list[mx.array]:
    names, count = list(stage.own), len(stage.inputs)

    def run(*values: mx.array) -> list[mx.array]:
        trained.put(dict(zip(names, values[count:], strict=True)), key)
        return stage.run(*values[:count])

    _, found = mx.vjp(run, [*stage.inputs, *stage.own.values()], slope)
    trained.put(stage.own, key)
    mx.eval(found)
    slopes.update(zip(names, found[count:], strict=True))
    return found[:count]
