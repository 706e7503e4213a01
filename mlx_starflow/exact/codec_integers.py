"""Integers that an encoder and a decoder agree on: dither, and the parameters of a Gaussian.

The scale and the mean that a network gives differ in their last digits from one kind of arithmetic
to another. The entropy coder therefore never sees them: it sees the nearest point of a fixed grid,
which is coarse beside these digits,

    scale index   k = round(8 log2(sigma / step))
    mean index    m = round(8 b / (step 2^(k / 8)))

A number very near the border between two grid points could be rounded to either. The encoder
therefore looks for a dither that leaves no number within ``MARGIN`` of a border: decoding then
gives the same integers wherever the arithmetic differs by less than that. (In float32 another
order of the same sums makes a difference of some 5e-5 of a grid's spacing.)
"""

from __future__ import annotations

import numpy as np

from ..errors import NumericsError

PER_OCTAVE = 8  # grid points of the scale for a factor of 2, and of the mean for one deviation
MARGIN = 1 / 8192  # of a grid's spacing
SCALES = (-12 * PER_OCTAVE, 20 * PER_OCTAVE)  # least and greatest scale index
LARGEST_MEAN = 2**40  # |mean index|, far beyond any picture
DITHER_BITS = 16

# 2^(i / 8), written out: a power function may round differently on another system.
_ROOTS = (
    1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
    1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424,
)  # fmt: skip


def dither(seed: int, tokens: int, channels: int) -> np.ndarray:
    """(T, D) offsets of the quantiser in steps, uniform in [-1/2, 1/2): float64 multiples of
    2^-16, the same for a seed on every system."""
    drawn = np.random.Philox(key=seed).random_raw(tokens * channels) >> np.uint64(64 - DITHER_BITS)
    return (drawn.astype(np.float64) * 2.0**-DITHER_BITS - 0.5).reshape(tokens, channels)


def scale_grid(sigma: np.ndarray, step: float) -> np.ndarray:
    """Where each sigma lies on the grid of scales, float64, before rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = PER_OCTAVE * np.log2(sigma.astype(np.float64) / step)
    if np.isnan(place).any():
        raise NumericsError("The flow gave a scale that is no number.")
    return np.clip(place, *SCALES)


def mean_grid(b: np.ndarray, scale: np.ndarray, step: float) -> np.ndarray:
    """Where each mean lies on the grid that its scale index sets, float64, before rounding."""
    if not np.isfinite(b).all():
        raise NumericsError("The flow gave a mean that is no finite number.")
    place = PER_OCTAVE * b.astype(np.float64) / (step * deviation(scale))
    return np.clip(place, -LARGEST_MEAN, LARGEST_MEAN)


def deviation(scale: np.ndarray) -> np.ndarray:
    """2^(k / 8): the deviation in steps that a scale index stands for."""
    octave, part = np.divmod(scale, PER_OCTAVE)
    return np.ldexp(np.array(_ROOTS)[part], octave)


def mean_in_steps(mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The mean in steps that a mean index stands for."""
    return mean * deviation(scale) / PER_OCTAVE


def rounded(place: np.ndarray) -> np.ndarray:
    """Nearest integers, int64."""
    return np.floor(place + 0.5).astype(np.int64)


def margin(place: np.ndarray) -> float:
    """Least distance of any number from the border where its rounding would change."""
    return float((0.5 - np.abs(place - np.floor(place + 0.5))).min())
