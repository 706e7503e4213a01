"""The score of a large flow, computed layer by layer.

``mx.grad`` of the whole flow is one evaluation, which for a large model takes seconds and holds all
activations in memory. Here the forward pass stores the input of each layer only; the backward pass
computes each layer again together with its gradient, and evaluates it before the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from ..flow import Block, Context, Flow
from ..flow.grid import grid_of, patchify, unpatchify
from ..flow.layers import Layer
from ..flow.order import Order
from ..flow.rope import Rotation


@dataclass
class _Passed:
    """What the backward pass needs of a block."""

    block: Block
    order: Order
    u: mx.array  # (rows, places, D), the input of the block, in the block's order
    inputs: list[mx.array]  # of every layer, and the output of the last
    prefix: int  # number of text tokens
    table: Rotation | None


def score_by_layers(flow: Flow, x: mx.array, context: Context) -> mx.array:
    """grad_x log p(x | context) of x (B, H, W, C), of the same shape, equal to ``mx.grad``'s."""
    grid = grid_of(x, flow.config)
    context = flow.check_context(context, x.shape[0])
    u = patchify(x.astype(mx.float32), flow.config)
    passed: list[_Passed] = []
    for index, block in enumerate(flow.blocks):
        if isinstance(block, Block):
            u = _forward(block, flow.order(index, grid), u, context, passed)
    slope = -u  # of log N(z; 0, I)
    while passed:
        slope = _backward(passed.pop(), slope, context)
    return unpatchify(slope, grid, flow.config)


def _forward(
    block: Block, order: Order, u: mx.array, context: Context, passed: list[_Passed]
) -> mx.array:
    u = order.into(u)
    hidden, prefix, table = block.start(u, order.grid, context)
    inputs = [hidden]
    for layer in block.layers:
        inputs.append(layer(inputs[-1], table, "causal"))
        mx.eval(inputs[-1])
    passed.append(_Passed(block, order, u, inputs, prefix, table))
    v, _ = affine_of(block, inputs[-1], u, prefix)
    mx.eval(v)
    return order.back(v)


def _backward(done: _Passed, slope: mx.array, context: Context) -> mx.array:
    """The gradient at the input of a block, from that at its output (B, T, D)."""
    block, order = done.block, done.order
    slope = order.into(slope)

    def last(hidden: mx.array, u: mx.array) -> list[mx.array]:
        return list(affine_of(block, hidden, u, done.prefix))

    _, (inner, direct) = mx.vjp(last, [done.inputs.pop(), done.u], [slope, mx.array(1.0)])
    for layer in reversed(block.layers):

        def one(hidden: mx.array, layer: Layer = layer) -> mx.array:
            return layer(hidden, done.table, "causal")

        _, (inner,) = mx.vjp(one, [done.inputs.pop()], [inner])
        mx.eval(inner, direct)
    _, (through,) = mx.vjp(lambda u: block.start(u, order.grid, context)[0], [done.u], [inner])
    slope = direct + through
    mx.eval(slope)
    return order.back(slope)


def affine_of(
    block: Block, hidden: mx.array, u: mx.array, prefix: int
) -> tuple[mx.array, mx.array]:
    """A block's output (B, T, D) and the sum of its log-determinant."""
    a, b = block.finish(hidden, prefix, u.shape[1])
    return (u - b) / block.sigma(a), -block.log_sigma(a).sum()
