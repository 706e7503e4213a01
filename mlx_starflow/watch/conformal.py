"""p-values that are exact for any distribution (Vovk et al., Algorithmic Learning in a Random
World; full conformal prediction).

The picture in question is put among the reference pictures and all are scored alike, each against
the others. If it comes from where they come from, every order of the scores is equally probable, so
that its rank among n + 1 is uniform and p = rank / (n + 1) is at most a with probability at most a.
This holds over the draw of the reference *and* the picture: one particular reference has a
false-alarm rate of its own around that.
"""

from __future__ import annotations

import math

import numpy as np

from .measure import Measured
from .statistics import scores, token_distances


def p_value(values: np.ndarray) -> float:
    """Of the last score among all (N,): the share of scores at least as large, its own included."""
    return float((values >= values[-1]).mean())


def p_values(
    reference: Measured, picture: Measured
) -> tuple[float, dict[str, tuple[float, float]]]:
    """The p-value of one picture by the largest of its statistics, and for each statistic its
    standardised score and its own p-value."""
    found = scores(reference.and_(picture))
    largest = np.max(np.stack(list(found.values())), axis=0)
    each = {name: (float(values[-1]), p_value(values)) for name, values in found.items()}
    return p_value(largest), each


def least_p_value(pictures: int) -> float:
    """What the most unusual picture gets beside so many reference pictures."""
    return 1 / (pictures + 1)


def token_map(
    reference: Measured, picture: Measured, false_alarms: float
) -> tuple[np.ndarray, float]:
    """Distances (T,) of a picture's tokens, and the threshold that the largest distance of an
    ordinary picture exceeds with at most this probability (infinite for too few pictures)."""
    distances = token_distances(reference.and_(picture))
    largest = np.sort(distances[:-1].max(axis=1))
    rank = math.ceil((1 - false_alarms) * (len(reference) + 1))
    threshold = largest[rank - 1] if rank <= len(reference) else math.inf
    return distances[-1], float(threshold)
