"""Standard normal noise from seeds, one seed per row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mlx.core as mx


def seeded_noise(shape: Sequence[int], seeds: Iterable[int]) -> mx.array:
    """Noise (len(seeds), *shape) float32. A row depends on its seed only: it is the same alone, in
    a batch and in any thread."""
    return mx.stack([mx.random.normal(tuple(shape), key=mx.random.key(seed)) for seed in seeds])
