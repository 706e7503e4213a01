"""p-values that are valid for any distribution (full conformal prediction; Vovk et al., Algorithmic
Learning in a Random World).

The picture is added to the n reference pictures, and each picture is scored against all others. If
it comes from the same distribution as the reference, all orders of the scores are equally probable.
The picture's rank among the n + 1 scores is then uniform, so for every a the p-value
p = rank / (n + 1) is at most a with probability at most a. This probability is over the draw of the
reference *and* the picture; the false-alarm rate with one particular reference varies around it.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import NumericsError
from .measure import Measured
from .statistics import scores, token_distances


def p_value(values: np.ndarray) -> float:
    """The p-value of the last of N scores: the share of scores that are at least as large, itself
    included."""
    return float((values >= values[-1]).mean())


def p_values(
    reference: Measured, picture: Measured
) -> tuple[float, dict[str, tuple[float, float]]]:
    """The p-value of one picture, computed from the largest of its scores; and, for each statistic,
    the score and the p-value of this statistic alone. Errors: NumericsError if a score is NaN."""
    found = scores(reference.and_(picture))
    largest = np.max(np.stack(list(found.values())), axis=0)
    if not np.isfinite(largest).all():
        raise NumericsError(
            "The scores of the picture and the reference hold NaN or infinity, so there is no "
            "p-value. Is the reference damaged?"
        )
    each = {name: (float(values[-1]), p_value(values)) for name, values in found.items()}
    return p_value(largest), each


def least_p_value(pictures: int) -> float:
    """The smallest possible p-value with so many reference pictures."""
    return 1 / (pictures + 1)


def token_map(
    reference: Measured, picture: Measured, false_alarms: float
) -> tuple[np.ndarray, float]:
    """Distances (T,) of a picture's tokens, and a threshold: the largest distance in an ordinary
    picture exceeds it with probability at most ``false_alarms``. The threshold is infinite if there
    are too few reference pictures."""
    distances = token_distances(reference.and_(picture))
    largest = np.sort(distances[:-1].max(axis=1))
    rank = math.ceil((1 - false_alarms) * (len(reference) + 1))
    threshold = largest[rank - 1] if rank <= len(reference) else math.inf
    return distances[-1], float(threshold)
