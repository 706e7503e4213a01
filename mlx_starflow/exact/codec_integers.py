"""Gaussian parameters as integers, so that encoder and decoder use the same ones.

The scale and the mean that a network computes differ in their last digits between machines. The
codec therefore uses the nearest point of a fixed grid, whose spacing is much larger:

    scale index   k = round(8 log2(sigma / step) - h / 2)            sigma ~ step 2^((2 k + h) / 16)
    mean index    m = round(8 b / (step 2^((2 k + h) / 16)) - s)     b ~ (m + s) step 2^(...) / 8

The grids are shifted by numbers s in [-1/2, 1/2) and h = 0 or 1 that follow from a seed. A number
close to the border between two grid points could be rounded to either of them, so the encoder
searches for a seed for which no number is within ``MARGIN`` of a border. Decoding then gives the
same integers on every machine whose results differ by less than this. (In float32, summing in
another order changes the numbers by about 5e-5 of the grid's spacing.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import NumericsError

PER_OCTAVE = 8  # scale grid points per factor of 2; mean grid points per standard deviation
MARGIN = 1 / 8192  # in units of the grid's spacing
SCALES = (-12 * PER_OCTAVE, 20 * PER_OCTAVE)  # smallest and largest scale index
LARGEST_MEAN = 2**40  # of |mean index|, far larger than in any picture
SHIFT_BITS = 16

# 2^(i / 16) as constants, since power functions may round differently on other systems.
_ROOTS = (
    1.0, 1.0442737824274138, 1.0905077326652577, 1.1387886347566916,
    1.189207115002721, 1.241857812073484, 1.2968395546510096, 1.3542555469368927,
    1.4142135623730951, 1.4768261459394993, 1.5422108254079407, 1.6104903319492543,
    1.681792830507429, 1.7562521603732995, 1.8340080864093424, 1.9152065613971474,
)  # fmt: skip


@dataclass(frozen=True)
class Shifts:
    """Shifts of the grids of all numbers of a picture's tokens, identical on every system."""

    mean: np.ndarray  # (T, D) float64 in [-1/2, 1/2), multiples of 2^-16; in grid points
    half: np.ndarray  # (T, D) int64, 0 or 1: the scale grid is shifted by half a grid point

    @classmethod
    def of(cls, seed: int, tokens: int, channels: int) -> Shifts:
        drawn = np.random.Philox(key=seed).random_raw(tokens * channels)
        high = (drawn >> np.uint64(64 - SHIFT_BITS)).astype(np.float64)
        mean = high * 2.0**-SHIFT_BITS - 0.5
        half = (drawn & np.uint64(1)).astype(np.int64)
        return cls(mean.reshape(tokens, channels), half.reshape(tokens, channels))

    def of_token(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        return self.mean[t], self.half[t]


@dataclass(frozen=True)
class Gaussians:
    """Rounded Gaussians of the D numbers of one token, in units of their steps."""

    scale: np.ndarray  # (D,) int64: 16 log2 of the standard deviation, which determines the code
    deviation: np.ndarray  # (D,) float64, standard deviation
    mean: np.ndarray  # (D,) float64
    margin: float  # least distance of a parameter from a rounding border, in grid points

    @classmethod
    def of(
        cls, sigma: np.ndarray, b: np.ndarray, step: np.ndarray, shifts: Shifts, t: int
    ) -> Gaussians:
        """sigma, b (D,): as computed; step (D,). Errors: NumericsError for NaN and infinity."""
        shift, half = shifts.of_token(t)
        if np.isnan(sigma).any():
            raise NumericsError("The flow computed a scale that is NaN.")
        if not np.isfinite(b).all():
            raise NumericsError("The flow computed a mean that is NaN or infinite.")
        with np.errstate(divide="ignore"):
            place = PER_OCTAVE * np.log2(sigma.astype(np.float64) / step) - half / 2
        place = np.clip(place, *SCALES)
        scale = 2 * rounded(place) + half
        deviation = deviation_of(scale)
        where = PER_OCTAVE * b.astype(np.float64) / (step * deviation) - shift
        where = np.clip(where, -LARGEST_MEAN, LARGEST_MEAN)
        mean = (rounded(where) + shift) * deviation / PER_OCTAVE
        return cls(scale, deviation, mean, min(margin(place), margin(where)))


def deviation_of(scale: np.ndarray) -> np.ndarray:
    """The standard deviation in steps of a scale (int64, any shape), 2^(scale / 16)."""
    octave, part = np.divmod(scale, 2 * PER_OCTAVE)
    return np.ldexp(np.array(_ROOTS)[part], octave)


def rounded(place: np.ndarray) -> np.ndarray:
    """The nearest integers, int64."""
    return np.floor(place + 0.5).astype(np.int64)


def margin(place: np.ndarray) -> float:
    """The least distance of any number from a rounding border (an integer plus 1/2)."""
    return float((0.5 - np.abs(place - np.floor(place + 0.5))).min())
