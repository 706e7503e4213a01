"""Standard normal noise from seeds: every row from the key of its own seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mlx.core as mx


def seeded_noise(shape: Sequence[int], seeds: Iterable[int]) -> mx.array:
    """(len(seeds), *shape) float32. A seed gives the same row alone, in a batch, in any thread."""
    return mx.stack([mx.random.normal(tuple(shape), key=mx.random.key(seed)) for seed in seeds])
