"""How exact a result can be promised to be: never more than the arithmetic in use allows.

The same tokens computed in another grouping (one by one, in a window, all at once) come out
differently by the rounding of products: the *floor* of the arithmetic, below which a residual
cannot be brought. It depends on the type of the products, on the chip's kernels and on the
weights, so it is measured: two groupings of the same tokens, once with the calibration and again
wherever a sampler sees that its sweeps no longer gain. The tolerance is the greater of twice the
floor and a constant of the type.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from ..device.products import kept_type
from ..flow import Block
from .conditional import Conditional
from .options import ACCURACIES, BlockReport

# Largest residual that is promised where the floor is lower, by the type of keys and values.
CONSTANT = {mx.float32: 2e-5, mx.float16: 5e-3, mx.bfloat16: 3e-2}
FLOORS = 2.0  # a tolerance is at least so many floors
TOKENS = 32  # that a floor is measured with

# What a block's result is, in one word.
WITHIN, ROUNDING, SWEEPS, ABOVE = ACCURACIES


def arithmetic(block: Block) -> mx.Dtype:
    """The type that decides how exact a block is: of its keys and values, which is that of its
    products or narrower."""
    return kept_type(block.layers[0].attention.qkv)


def constant(block: Block) -> float:
    """The tolerance of a block's arithmetic where its floor is low."""
    return CONSTANT[arithmetic(block)]


def tolerance_of(floor: float, least: float) -> float:
    """The tolerance for a floor; ``least``: what was asked for, or a constant."""
    return max(FLOORS * floor, least)


def word_for(
    residual: float | None, asked: float, floor: float, least: float, all_sweeps: bool
) -> str:
    """The word for a block's result. ``least``: the constant of its arithmetic; a residual above
    it is due to rounding also where the tolerance that was asked for allows it."""
    if not all_sweeps:
        return SWEEPS
    if residual is None or residual <= min(asked, least):
        return WITHIN
    if residual <= asked:
        return ROUNDING if residual <= tolerance_of(floor, 0.0) else WITHIN
    return ROUNDING if residual <= tolerance_of(floor, asked) else ABOVE


def worst_accuracy(reports: Sequence[BlockReport]) -> str:
    """The word for a whole sample: the worst of its blocks'."""
    return max((r.accuracy for r in reports), key=ACCURACIES.index, default=WITHIN)


def measure_floor(block: Conditional, v: mx.array) -> float:
    """The floor of a block: the largest difference of its first tokens, computed from noise v
    (B, T, D) one by one and again all at once."""
    count = min(TOKENS, block.tokens)
    previous, tokens = mx.zeros_like(v[:, :1]), []
    for t in range(count):
        sigma, b = block.affine(previous, t)
        previous = sigma * v[:, t : t + 1] + b
        mx.async_eval(previous)
        tokens.append(previous)
    inputs = mx.concatenate([mx.zeros_like(previous), *tokens[:-1]], axis=1)
    sigma, b = block.affine(inputs, 0)
    again = sigma * v[:, :count] + b
    return float(np.abs(np.array(again - mx.concatenate(tokens, axis=1))).max())
