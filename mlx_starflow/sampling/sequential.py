"""The definition of the inverse: u_t = sigma_t(u_<t) v_t + b_t(u_<t), token after token."""

from __future__ import annotations

from collections.abc import Generator

import mlx.core as mx

from ..device.typed import scalar
from .conditional import Conditional
from .options import SampleOptions
from .outcome import Outcome
from .tolerance import constant


def sequential(
    block: Conditional, v: mx.array, options: SampleOptions
) -> Generator[int, None, Outcome]:
    """Noise v (B, T, D) in the block's order -> tokens; yields the number of tokens done.

    The host never waits for the device: each token is sent off as soon as it is described.
    """
    previous, done = block.last(v), block.solved()
    for t in range(block.start, block.tokens):
        sigma, b = block.affine(previous, t)
        previous = sigma * v[:, t : t + 1] + b
        done.append(previous)
        mx.async_eval(previous)
        yield t + 1
    tokens = mx.concatenate(done, axis=1)
    # One token at a time is the definition, but its rounding may grow along the sequence: where it
    # does, a parallel pass disagrees.
    promised = options.tolerance or constant(block.block)
    allowed = promised * max(1.0, scalar(mx.abs(tokens).max()))
    return Outcome(tokens, window=1, sweeps={1: block.tokens - block.start}, allowed=allowed)
