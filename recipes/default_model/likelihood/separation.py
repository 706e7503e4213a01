"""Measure how well likelihood separates paintings from other kinds of pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mlx_starflow.editing.inputs import contexts_of, latents_of
from mlx_starflow.exact.scoring import ScoreOptions, score_pictures
from mlx_starflow.pipeline import Pipeline

from .outliers import OUTLIERS


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The AUROC: the probability that a score of ``inside`` is greater than one of ``outside``.
    Ties count half."""
    above = (inside[:, None] > outside[None]).mean()
    return float(above + 0.5 * (inside[:, None] == outside[None]).mean())


def compressed_bits(picture: np.ndarray) -> float:
    """Size of the picture as a PNG, in bits per pixel value: a measure of its complexity."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return 8 * file.tell() / picture.size


def bits_per_dim(pipe: Pipeline, pictures: np.ndarray, draws: int) -> np.ndarray:
    """(N,) bits per dimension of the noised latents under the null caption."""
    x = latents_of(pipe, [Image.fromarray(p) for p in pictures])
    scores = score_pictures(pipe.flow, x, contexts_of(pipe, [""]), ScoreOptions(draws=draws))
    return np.array([s.bits_per_dim[0] for s in scores])


def separation(
    pipe: Pipeline, calibration: np.ndarray, paintings: np.ndarray, draws: int
) -> dict[str, dict[str, float]]:
    """AUROC of four scores for every kind of outlier. The outliers are made from ``paintings``.

    likelihood   minus the bits per dimension
    corrected    minus the residual of a linear regression of the bits per dimension on the
                 compressed size (arXiv 1909.11480 uses the difference of two code lengths of the
                 same data; here they are of a noised latent and of pixels, hence the regression)
    typical      minus the absolute difference from the mean bits per dimension
    corrected, typical   minus the absolute residual

    The regression and the mean are fitted to ``calibration``, which are other paintings.
    """
    own_bits = bits_per_dim(pipe, calibration, draws)
    own_size = np.array([compressed_bits(p) for p in calibration])
    slope, offset = np.polyfit(own_size, own_bits, 1)

    def scores(pictures: np.ndarray) -> dict[str, np.ndarray]:
        bits = bits_per_dim(pipe, pictures, draws)
        left = bits - (slope * np.array([compressed_bits(p) for p in pictures]) + offset)
        return {
            "bits": bits,
            "likelihood": -bits,
            "corrected": -left,
            "typical": -np.abs(bits - own_bits.mean()),
            "corrected, typical": -np.abs(left),
        }

    inside = scores(paintings)
    table = {"paintings": {"bits": float(inside["bits"].mean()), "slope": float(slope)}}
    rng = np.random.default_rng(7)
    for kind, change in OUTLIERS.items():
        outside = scores(np.stack([change(p, rng) for p in paintings]))
        row = {name: auroc(inside[name], outside[name]) for name in inside if name != "bits"}
        table[kind] = {"bits": float(outside["bits"].mean()), **row}
    return table
