"""Block-wise Jacobi iteration as in the published sampler (arXiv 2506.06276).

Tokens are solved in chunks of ``block_size``. They start at their noise and are updated together
until the mean squared change of the chunk, over the whole batch, falls below ``tolerance`` times
the mean square. This sampler is for comparison only: its stopping rule misses errors of single
tokens, which the mean hides, and the KV cache keeps keys of the last sweep's inputs.

In a clip, in blocks that see more than one frame, chunks after the first frame are four times as
large, and their first sweep reads the tokens one frame earlier (arXiv 2511.20462).
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
MOVING = 4  # times as many tokens in a chunk behind a clip's first frame


def jacobi(
    block: Conditional, v: mx.array, options: SampleOptions
) -> Generator[int, None, Outcome]:
    """Noise v (B, T, D) in the block's order -> ``Outcome``. Yields the number of tokens done."""
    size = options.block_size or BLOCK_SIZE
    tolerance = TOLERANCE if options.tolerance is None else options.tolerance
    most = options.max_sweeps or MAX_SWEEPS
    sweeps: Counter[int] = Counter()
    converged, solved = True, block.solved()
    last, start, frame = block.last(v), block.start, block.grid.frame_tokens
    while start < block.tokens:
        moving = block.before + start > frame  # behind the clip's first frame
        noise = v[:, start : start + (MOVING * size if moving else size)]
        u, change, sweep = noise, float("inf"), 0
        previous = mx.concatenate([last, u[:, :-1]], axis=1)
        if moving:
            previous = _one_frame_earlier(block, mx.concatenate([*solved, noise], axis=1), start)
        while change >= tolerance and sweep < most:
            sigma, b = block.affine(previous, start)
            new = sigma * noise + b
            change = scalar(mx.mean(mx.square(new - u)) / mx.mean(mx.square(new)))
            u, sweep = new, sweep + 1
            previous = mx.concatenate([last, u[:, :-1]], axis=1)
            yield start
        sweeps[sweep] += 1
        converged = converged and change < tolerance
        solved.append(u)
        last, start = u[:, -1:], start + u.shape[1]
        yield start
    tokens = mx.concatenate(solved, axis=1)
    total = sum(n * k for n, k in sweeps.items())
    # The residual may be as large as the stopping rule allows the root mean square to be.
    allowed = scalar(mx.sqrt(tolerance * mx.mean(mx.square(tokens))))
    return Outcome(tokens, min(size, block.tokens), dict(sweeps), total, converged, allowed=allowed)


def _one_frame_earlier(block: Conditional, tokens: mx.array, start: int) -> mx.array:
    """What stands one frame before the inputs of tokens ``start`` ... of tokens (B, n, D), the
    unknown ones among them being their noise."""
    first, end = start - block.grid.frame_tokens - 1, tokens.shape[1] - block.grid.frame_tokens - 1
    if first >= 0:
        return tokens[:, first:end]
    nothing = mx.zeros_like(tokens[:, :1])
    if block.block.flow.sos:
        nothing = mx.broadcast_to(block.block.sos_embed, nothing.shape)
    return mx.concatenate([nothing, tokens[:, :end]], axis=1)
