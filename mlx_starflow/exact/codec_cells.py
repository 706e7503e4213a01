"""Cells of the quantiser under a Gaussian: their code length, their choice, their mean.

All functions take arrays of any shape. Numbers are in steps, relative to the Gaussian's mean: the
cell of the integer q reaches from q - 1/2 to q + 1/2.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import UsageError

LARGEST_EXTENT = 20  # |q| is at most 2^20
# Squared error, in steps², that one bit must save. Measured on paintings: docs/compression.md.
THRIFT = 0.05


def chosen(x: np.ndarray, deviation: np.ndarray, thrift: float = THRIFT) -> np.ndarray:
    """The integers q, int32, that code the numbers x: of the nearest integer, the next one towards
    zero, and zero, the one with the least (x - q)² + thrift * bits. deviation: of the Gaussian.

    Errors: UsageError if a number is too large.
    """
    nearest = np.floor(x + 0.5)
    if not np.abs(nearest).max() <= 1 << LARGEST_EXTENT:
        raise UsageError(
            f"With this step the picture needs integers larger than 2^{LARGEST_EXTENT}; use a "
            "larger step."
        )
    best, least = nearest, np.full(x.shape, np.inf)
    for q in (nearest, nearest - np.sign(nearest), np.zeros_like(nearest)):
        cost = (x - q) ** 2
        if thrift:
            cost = cost + thrift * cell_bits(q / deviation, 1 / deviation)
        best, least = np.where(cost < least, q, best), np.minimum(cost, least)
    return best.astype(np.int32)


def cell_bits(centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    """-log2 of the probability of cells under the standard normal distribution, accurate in the
    tails. ``centre`` and ``width``: in standard deviations."""
    low, high, p = _edges(centre, width)
    # Far in the tail: the asymptotic expansion of erfc at the nearer edge.
    far = np.maximum(low, 5.0)
    tail = (far**2 + np.log(2 * math.sqrt(math.pi) * far)) / math.log(2)
    return np.where(low > 25, tail, -np.log2(np.maximum(p, 1e-300)))


def cell_means(q: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The mean of the Gaussian inside the cell of each q, float64: the best guess of a coded
    number. Differs in the last digits between systems."""
    low, high, p = _edges(q / deviation, 1 / deviation)
    density = np.exp(-(low**2)) - np.exp(-(high**2))
    inside = deviation * density / (math.sqrt(2 * math.pi) * np.maximum(p, 1e-300))
    size = np.abs(q).astype(np.float64)
    inside = np.where(p > 1e-290, inside, size - 0.5)  # far out: at the edge
    return np.sign(q) * np.clip(inside, size - 0.5, size + 0.5)


def _edges(centre: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper edge of the cells at |centre|, divided by √2, and their probabilities."""
    centre, width = np.abs(centre.astype(np.float64)), width.astype(np.float64)
    low, high = (centre - width / 2) / math.sqrt(2), (centre + width / 2) / math.sqrt(2)
    return low, high, 0.5 * (_erfc(low) - _erfc(high))


def _erfc(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erfc, otypes=[np.float64])(x)
