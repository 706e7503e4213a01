"""The tolerance that a sampler can reach, given the rounding errors of the arithmetic.

Tokens computed one by one, in a window or all at once differ by rounding errors. Their size is
called the *floor*: no residual can be made smaller. It depends on the dtype, on the kernels of the
chip and on the weights, so it is measured, by computing the same tokens in two ways: during
calibration, and again when a sampler notices that its sweeps make no progress. The tolerance is the
larger of twice the floor and a constant of the dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from ..device.products import kept_type
from ..flow import Block
from .conditional import Conditional
from .options import ACCURACIES, BlockReport

# Smallest tolerance by the dtype of keys and values.
CONSTANT = {mx.float32: 2e-5, mx.float16: 5e-3, mx.bfloat16: 3e-2}
FLOORS = 2.0  # the tolerance is at least this many times the floor
TOKENS = 32  # number of tokens with which the floor is measured

WITHIN, ROUNDING, SWEEPS, ABOVE = ACCURACIES


def arithmetic(block: Block) -> mx.Dtype:
    """The dtype that determines the accuracy of a block: that of its keys and values, which has
    at most the precision of its products."""
    return kept_type(block.layers[0].attention.qkv)


def constant(block: Block) -> float:
    """The smallest tolerance for the dtype of a block."""
    return CONSTANT[arithmetic(block)]


def tolerance_of(floor: float, least: float) -> float:
    """The tolerance for a measured floor, at least ``least``."""
    return max(FLOORS * floor, least)


def word_for(
    residual: float | None, asked: float, floor: float, least: float, all_sweeps: bool
) -> str:
    """``BlockReport.accuracy`` of a block.

    residual: as measured; None: not measured. asked: the tolerance in the options. floor: measured
    rounding error. least: the constant of the dtype; a larger residual that rounding explains is
    "rounding" even if it is within ``asked``. all_sweeps: False if max_sweeps ended the work early.
    """
    if not all_sweeps:
        return SWEEPS
    if residual is None or residual <= min(asked, least):
        return WITHIN
    if residual <= asked:
        return ROUNDING if residual <= tolerance_of(floor, 0.0) else WITHIN
    return ROUNDING if residual <= tolerance_of(floor, asked) else ABOVE


def worst_accuracy(reports: Sequence[BlockReport]) -> str:
    """The worst ``accuracy`` of any block."""
    return max((r.accuracy for r in reports), key=ACCURACIES.index, default=WITHIN)


def measure_floor(block: Conditional, v: mx.array) -> float:
    """Measure the floor of a block: the largest difference between its first TOKENS tokens,
    computed from noise v (B, T, D) one by one, and the same tokens computed in one pass."""
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
