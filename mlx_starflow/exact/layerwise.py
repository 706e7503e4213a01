"""The score of a large flow, a layer at a time: the chain rule written out.

``mx.grad`` of the whole flow is one evaluation, which for a large model takes seconds and all
activations at once. Here the pass to the noise keeps what goes into each layer, and the way back
computes every layer once more, with its gradient, and evaluates it before the next.
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
    """A block that the data went through."""

    block: Block
    order: Order
    u: mx.array  # what went in, in the block's order
    inputs: list[mx.array]  # of every layer, and what the last one gave
    prefix: int
    table: Rotation | None


def score_by_layers(flow: Flow, x: mx.array, context: Context) -> mx.array:
    """grad_x log p(x | context), (B, H, W, C), as ``mx.grad`` gives it."""
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
    v, _ = _affine(block, inputs[-1], u, prefix)
    mx.eval(v)
    return order.back(v)


def _backward(done: _Passed, slope: mx.array, context: Context) -> mx.array:
    """The gradient at a block's input from that at its output."""
    block, order = done.block, done.order
    slope = order.into(slope)

    def last(hidden: mx.array, u: mx.array) -> list[mx.array]:
        return list(_affine(block, hidden, u, done.prefix))

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


def _affine(block: Block, hidden: mx.array, u: mx.array, prefix: int) -> tuple[mx.array, mx.array]:
    """A block's output (B, T, D) and the sum of its log-determinant."""
    a, b = block.finish(hidden, prefix)
    return (u - b) / block.sigma(a), -block.log_sigma(a).sum()
