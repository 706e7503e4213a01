"""Block-wise Jacobi iteration as in the published sampler (arXiv 2506.06276).

Tokens are solved in chunks of ``block_size``. They start at their noise and are updated together
until the mean squared change of the chunk, over the whole batch, falls below ``tolerance`` times
the mean square. This sampler is for comparison only: its stopping rule misses errors of single
tokens, which the mean hides, and the KV cache keeps keys of the last sweep's inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import mlx.core as mx

from ..device.typed import scalar
from .conditional import Conditional
from .options import SampleOptions
from .outcome import Outcome

BLOCK_SIZE, TOLERANCE, MAX_SWEEPS = 16, 1e-3, 32  # the released settings


def jacobi(
    block: Conditional, v: mx.array, options: SampleOptions
) -> Generator[int, None, Outcome]:
    """Noise v (B, T, D) in the block's order -> ``Outcome``. Yields the number of tokens done."""
    size = options.block_size or BLOCK_SIZE
    tolerance = TOLERANCE if options.tolerance is None else options.tolerance
    most = options.max_sweeps or MAX_SWEEPS
    sweeps: Counter[int] = Counter()
    converged, chunks = True, []
    last = mx.zeros_like(v[:, :1])
    for start in range(0, block.tokens, size):
        noise = v[:, start : start + size]
        u, change, sweep = noise, float("inf"), 0
        while change >= tolerance and sweep < most:
            sigma, b = block.affine(mx.concatenate([last, u[:, :-1]], axis=1), start)
            new = sigma * noise + b
            change = scalar(mx.mean(mx.square(new - u)) / mx.mean(mx.square(new)))
            u, sweep = new, sweep + 1
            yield start
        sweeps[sweep] += 1
        converged = converged and change < tolerance
        chunks.append(u)
        last = u[:, -1:]
        yield start + u.shape[1]
    tokens = mx.concatenate(chunks, axis=1)
    total = sum(n * k for n, k in sweeps.items())
    # The residual may be as large as the stopping rule allows the root mean square to be.
    allowed = scalar(mx.sqrt(tolerance * mx.mean(mx.square(tokens))))
    return Outcome(tokens, min(size, block.tokens), dict(sweeps), total, converged, allowed=allowed)
