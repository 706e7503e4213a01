"""Dither and Gaussian parameters as integers, so that encoder and decoder use the same ones.

The scale and the mean that a network computes differ in their last digits between machines. The
entropy coder therefore uses the nearest point of a fixed grid, whose spacing is much larger:

    scale index   k = round(8 log2(sigma / step))
    mean index    m = round(8 b / (step 2^(k / 8)))

A number close to the border between two grid points could be rounded to either of them. The
encoder therefore searches for a dither for which no number is within ``MARGIN`` of a border.
Decoding then gives the same integers on every machine whose results differ by less than this. (In
float32, summing in another order changes the numbers by about 5e-5 of the grid's spacing.)
"""

from __future__ import annotations

import numpy as np

from ..errors import NumericsError

PER_OCTAVE = 8  # scale grid points per factor of 2; mean grid points per standard deviation
MARGIN = 1 / 8192  # in units of the grid's spacing
SCALES = (-12 * PER_OCTAVE, 20 * PER_OCTAVE)  # smallest and largest scale index
LARGEST_MEAN = 2**40  # of |mean index|, far larger than in any picture
DITHER_BITS = 16

# 2^(i / 8) as constants, since power functions may round differently on other systems.
_ROOTS = (
    1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
    1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424,
)  # fmt: skip


def dither(seed: int, tokens: int, channels: int) -> np.ndarray:
    """Offsets (T, D) of the quantiser, in steps, uniform in [-1/2, 1/2): float64 multiples of
    2^-16, identical on every system for a seed."""
    drawn = np.random.Philox(key=seed).random_raw(tokens * channels) >> np.uint64(64 - DITHER_BITS)
    return (drawn.astype(np.float64) * 2.0**-DITHER_BITS - 0.5).reshape(tokens, channels)


def scale_grid(sigma: np.ndarray, step: float) -> np.ndarray:
    """The scale index of each sigma, before rounding, float64. Errors: NumericsError for NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = PER_OCTAVE * np.log2(sigma.astype(np.float64) / step)
    if np.isnan(place).any():
        raise NumericsError("The flow computed a scale that is NaN.")
    return np.clip(place, *SCALES)


def mean_grid(b: np.ndarray, scale: np.ndarray, step: float) -> np.ndarray:
    """The mean index of each b, given its scale index, before rounding, float64. Errors:
    NumericsError for NaN and infinity."""
    if not np.isfinite(b).all():
        raise NumericsError("The flow computed a mean that is NaN or infinite.")
    place = PER_OCTAVE * b.astype(np.float64) / (step * deviation(scale))
    return np.clip(place, -LARGEST_MEAN, LARGEST_MEAN)


def deviation(scale: np.ndarray) -> np.ndarray:
    """The standard deviation in steps of a scale index k, 2^(k / 8)."""
    octave, part = np.divmod(scale, PER_OCTAVE)
    return np.ldexp(np.array(_ROOTS)[part], octave)


def mean_in_steps(mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The mean in steps of a mean index and its scale index."""
    return mean * deviation(scale) / PER_OCTAVE


def rounded(place: np.ndarray) -> np.ndarray:
    """The nearest integers, int64."""
    return np.floor(place + 0.5).astype(np.int64)


def margin(place: np.ndarray) -> float:
    """The least distance of any number from a rounding border (an integer plus 1/2)."""
    return float((0.5 - np.abs(place - np.floor(place + 0.5))).min())
