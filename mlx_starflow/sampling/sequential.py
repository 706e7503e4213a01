"""Sequential sampling, the definition of the inverse: u_t = sigma_t(u_<t) v_t + b_t(u_<t), one
token after another."""

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
    """Noise v (B, T, D) in the block's order -> ``Outcome``. Yields the number of tokens done.

    Tokens are evaluated asynchronously; the host does not wait for the device in between.
    """
    previous, done = block.last(v), block.solved()
    for t in range(block.start, block.tokens):
        sigma, b = block.affine(previous, t)
        previous = sigma * v[:, t : t + 1] + b
        done.append(previous)
        mx.async_eval(previous)
        yield t + 1
    tokens = mx.concatenate(done, axis=1)
    # Rounding errors may grow along the sequence, and a parallel pass then gives other tokens.
    # A residual above ``allowed`` is reported as not converged.
    promised = options.tolerance or constant(block.block)
    allowed = promised * max(1.0, scalar(mx.abs(tokens).max()))
    return Outcome(tokens, window=1, sweeps={1: block.tokens - block.start}, allowed=allowed)
