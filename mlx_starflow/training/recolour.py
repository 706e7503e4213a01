"""Pictures with the colours and contrasts of other pictures, as further pictures of a style.

A model that learns a style from few pictures learns it better from more. Pictures that the model
draws itself become such pictures approximately, if their statistics are made those of the style:
the mean and covariance of colours by the linear map that moves them least (Pitié and Kokaram, "The
linear Monge-Kantorovitch linear colour mapping", 2007), then the histograms of the pixels and of
band-passed pictures (Heeger and Bergen, "Pyramid-based texture analysis/synthesis", 1995). They are
statistics of a whole set of pictures: night stays darker than day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from ..errors import UsageError
from .data import Example

# Standard deviations of the Gaussian filters between the bands, as shares of the longer side
SIGMAS = (1 / 160, 1 / 80, 1 / 40, 1 / 20)
ROUNDS = 2  # how often bands and pixels are matched in turn
MOST = 64  # pictures of a set that the statistics are taken from, at most,
PIXELS = 1 << 22  # or as many as have this number of pixels, but at least
LEAST = 4
VALUES = 1 << 20  # about as many, evenly spaced, make the quantiles of a channel
# Probabilities of the quantiles that describe a histogram; more of them at the ends
QUANTILES = np.concatenate(
    [[0, 0.0005, 0.002], np.linspace(0.005, 0.995, 199), [0.998, 0.9995, 1]]
)  # fmt: skip
_LEAST = 1e-4  # smallest variance of a colour, for sets with fewer than three independent ones

Used = tuple[Example, Callable[[], Image.Image]]  # and a function that returns its picture
Quantiles = np.ndarray  # (3, Q), of each channel
Step = tuple[Quantiles, Quantiles]  # the values that become the others


def with_recoloured(
    examples: Sequence[Example], images: Mapping[str, Image.Image], words: str, keep: float
) -> list[Used]:
    """The examples, and a further one for each of those that this program drew, with the colours
    and contrasts of the others and captions that begin with ``words``.

    images: RGB pictures of one size by digest. keep: share of the drawn ones that stays among the
    examples, 0 to 1. The digest of a further example depends on those of all pictures, not on its
    pixels. Errors: UsageError if none or all of the pictures were drawn.
    """
    drawn, others = ([e for e in examples if e.drawn is which] for which in (True, False))
    if not drawn or not others:
        raise UsageError(
            "--recolour gives pictures that this program drew (without caption files) the colours "
            f"of the others. Of those for training, {len(drawn)} were drawn by it and "
            f"{len(others)} were not; it needs at least one of each."
        )
    made = Recolouring([images[e.digest] for e in drawn], [images[e.digest] for e in others])
    sets = [sorted(e.digest for e in part) for part in (drawn, others)]
    found: list[Used] = [
        (e, partial(images.__getitem__, e.digest)) for e in without_drawn(examples, keep)
    ]
    for example in drawn:
        digest = hashlib.sha256(repr(("recoloured", example.digest, sets)).encode()).hexdigest()
        prompts = tuple(f"{words.strip()} {prompt}" for prompt in example.prompts)
        further = replace(example, prompts=prompts, digest=digest)
        found.append((further, partial(made.of, images[example.digest])))
    return found


def without_drawn(examples: Sequence[Example], share: float) -> list[Example]:
    """The examples without those that this program drew, of which a share (0 to 1) is kept, evenly
    spaced."""
    found, drawn = [], 0
    for example in examples:
        drawn += example.drawn
        if not example.drawn or int(drawn * share) > int((drawn - 1) * share):
            found.append(example)
    return found


class Recolouring:
    """The map from the colours and contrasts of one set of pictures to those of another."""

    def __init__(self, source: Sequence[Image.Image], target: Sequence[Image.Image]) -> None:
        """source, target: RGB pictures of one size, at least one each. Of many or large ones some,
        evenly spaced, are used."""
        x, wanted = _pixels(_some(source)), _pixels(_some(target))
        self._matrix, self._mean, self._shift = _linear(x, wanted)
        x = self._coloured(x)
        bands = [_quantiles(b) for b in _bands(wanted)]
        pixels = _quantiles(wanted)
        self._first: Step = (_quantiles(x), pixels)
        x = _matched(x, self._first)
        self._rounds: list[tuple[list[Step], Step]] = []
        for _ in range(ROUNDS):
            split = _bands(x)
            steps = [(_quantiles(b), to) for b, to in zip(split, bands, strict=True)]
            x = _joined(split, steps)
            last = (_quantiles(x), pixels)
            x = _matched(x, last)
            self._rounds.append((steps, last))

    def of(self, image: Image.Image) -> Image.Image:
        """An RGB picture of the size of the sets with their other colours and contrasts."""
        x = _matched(self._coloured(_pixels([image])), self._first)
        for steps, last in self._rounds:
            x = _matched(_joined(_bands(x), steps), last)
        return Image.fromarray(np.clip(np.round(x[0]), 0, 255).astype(np.uint8))

    def _coloured(self, x: np.ndarray) -> np.ndarray:
        return (x - self._mean) @ self._matrix + self._shift


def _some(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    fitting = PIXELS // (pictures[0].width * pictures[0].height)
    count = min(len(pictures), MOST, max(LEAST, fitting))
    return [pictures[i * len(pictures) // count] for i in range(count)]


def _pixels(pictures: Sequence[Image.Image]) -> np.ndarray:
    """(N, H, W, 3) float32, 0 to 255."""
    return np.stack([np.asarray(p.convert("RGB"), dtype=np.float32) for p in pictures])


def _linear(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Symmetric matrix (3, 3), mean of the source and mean of the target (3,): the linear map that
    gives the source the covariance of the target."""
    s, t = (x.reshape(-1, 3).astype(np.float64) for x in (source, target))
    root, inverse = _roots(np.cov(s.T))
    middle, _ = _roots(root @ np.cov(t.T) @ root)
    matrix = inverse @ middle @ inverse
    return tuple(a.astype(np.float32) for a in (matrix, s.mean(axis=0), t.mean(axis=0)))


def _roots(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square root of a symmetric matrix and its inverse."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.sqrt(np.maximum(values, _LEAST))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _quantiles(x: np.ndarray) -> Quantiles:
    values = x.reshape(-1, 3)
    return np.quantile(values[:: max(1, len(values) // VALUES)], QUANTILES, axis=0).T


def _matched(x: np.ndarray, step: Step) -> np.ndarray:
    """x (..., 3) with other values of the same ranks in each channel."""
    channels = [np.interp(x[..., c], step[0][c], step[1][c]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _joined(bands: list[np.ndarray], steps: list[Step]) -> np.ndarray:
    """The sum of bands, each with other values."""
    return np.sum([_matched(b, s) for b, s in zip(bands, steps, strict=True)], axis=0)


def _bands(x: np.ndarray) -> list[np.ndarray]:
    """Pictures (N, H, W, 3) that add up to x, from fine to coarse."""
    side = max(x.shape[1:3])
    levels = [x, *(_blurred(x, sigma * side) for sigma in SIGMAS)]
    return [a - b for a, b in zip(levels, levels[1:], strict=False)] + levels[-1:]


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    """x (N, H, W, 3) after a Gaussian filter; its border continues outside."""
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in (1, 2):
        edges = [(0, 0)] * 4
        edges[axis] = (reach, reach)
        wide, length = np.pad(x, edges, mode="edge"), x.shape[axis]
        total = wide.shape[axis]
        response = np.fft.rfft(weights / weights.sum(), total)
        spectrum = np.fft.rfft(wide, axis=axis) * response.reshape(-1, *(1,) * (3 - axis))
        found = np.fft.irfft(spectrum, total, axis=axis)
        x = found.take(range(2 * reach, 2 * reach + length), axis=axis).astype(np.float32)
    return x
