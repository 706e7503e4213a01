"""Reference arrays of clips, which have channels before rows and columns, and their comparison."""

from __future__ import annotations

import mlx.core as mx
import numpy as np


def channels_last(a: np.ndarray) -> mx.array:
    return mx.array(np.moveaxis(a, -3, -1))


def assert_met(found: mx.array, expected: np.ndarray, share: float = 1e-5) -> None:
    """Largest error at most ``share`` of the largest absolute value."""
    found = np.moveaxis(np.array(found), -1, -3)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()
