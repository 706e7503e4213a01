"""Measure how well the numbers of ``generate --uncertainty`` detect failed pictures, where the
recipe's classifier decides which pictures failed."""

from __future__ import annotations

import math

import numpy as np

from mlx_starflow.editing.uncertainty import Uncertainty, uncertainty
from mlx_starflow.pipeline import Pipeline

from ..painter import Scene
from .separation import auroc

# The numbers, each with the sign for which a larger value is expected for a worse picture.
NUMBERS = {
    "-log p": lambda u: -u.log_p,
    "-gain": lambda u: -u.gain,
    "last digit": lambda u: u.last_digit,
    "mean sigma": lambda u: u.to_dict()["mean_sigma"],
    "largest sigma": lambda u: float(u.sigma.max()),
    "largest surprise": lambda u: float(u.surprise.max()),
}


def ranks_of_failures(
    pipe: Pipeline, judge, prompts: list[str], scenes: list[Scene], guidance: float | None = None
) -> dict[str, dict[str, float]]:
    """AUROC of each number, with its standard error, for separating pictures in which the judge
    does not recognize subject, place, colour or count from the others. Prompt i has seed i."""
    from ..classifier import KINDS, labels_of, predict  # imports PyTorch

    pictures, found = [], []
    for i, prompt in enumerate(prompts):
        result = pipe.generate(prompt, seed=i, guidance=guidance)
        pictures.append(np.asarray(result.images[0]))
        found += uncertainty(pipe, result)
    asked, seen = labels_of(scenes), predict(judge, np.stack(pictures))
    failed = np.logical_or.reduce([seen[kind] != asked[kind] for kind in KINDS])
    return table_of(found, failed)


def table_of(found: list[Uncertainty], failed: np.ndarray) -> dict[str, dict[str, float]]:
    """A row for each of NUMBERS. The AUROC is NaN if all pictures failed or none did."""
    rows = {}
    for name, number in NUMBERS.items():
        values = np.array([number(u) for u in found])
        area = (
            auroc(values[failed], values[~failed]) if 0 < failed.sum() < len(failed) else math.nan
        )
        rows[name] = {
            "AUROC": area,
            "standard error": standard_error(area, int(failed.sum()), int((~failed).sum())),
            "pictures": len(failed),
            "failures": int(failed.sum()),
        }
    return rows


def standard_error(area: float, positives: int, negatives: int) -> float:
    """The standard error of an AUROC (Hanley and McNeil 1982); NaN if either number is 0."""
    if not positives or not negatives:
        return math.nan
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return math.sqrt(max(spread, 0) / (positives * negatives))
