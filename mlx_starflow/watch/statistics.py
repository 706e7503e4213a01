"""Scores of how unusual each picture of a collection is, compared with all others.

The scores do not depend on the order of the pictures, and a picture is compared with the others
only (leave one out). The ranks in ``conformal`` are therefore exact: for pictures from one
distribution, each is equally likely to have the largest score.
"""

from __future__ import annotations

import numpy as np

from .measure import Measured

STATISTICS = {
    "likelihood": "distance of the log-likelihood from the mean of the others, in either direction",
    "corrected": "the same, after a linear regression on the size of the picture as a PNG",
    "composition": "Mahalanobis distance of the terms of the likelihood and of the autoencoder's "
    "error",
    "map": "Mahalanobis distance of the tokens, mean over all tokens",
    "spot": "Mahalanobis distance of the most unusual tokens",
}
SPOT = 4  # number of most unusual tokens
TAIL = 0.95  # quantile that becomes 1
RIDGE = 1e-6  # this share of the mean variance is added to each, to avoid division by zero


def scores(bag: Measured) -> dict[str, np.ndarray]:
    """For each of STATISTICS the scores (N,) of all pictures; larger is more unusual. All are
    brought to one scale: the logarithm is mapped linearly such that its median becomes 0 and its
    TAIL quantile 1, so that no statistic exceeds 1 more often than another."""
    tokens = token_distances(bag)
    largest = np.sort(tokens, axis=1)[:, -SPOT:].mean(axis=1)
    found = {
        "likelihood": _from_mean(bag.bits),
        "corrected": _from_line(bag.png, bag.bits),
        "composition": _mahalanobis(picture_features(bag)[:, None])[:, 0],
        "map": tokens.mean(axis=1),
        "spot": largest,
    }
    return {name: _standardised(np.log(values + 1e-12)) for name, values in found.items()}


def token_distances(bag: Measured) -> np.ndarray:
    """(N, T) squared Mahalanobis distance of every token from the tokens of the other pictures."""
    return _mahalanobis(token_features(bag))


def picture_features(bag: Measured) -> np.ndarray:
    """(N, F) features of each picture."""
    parts = bag.parts.sum(axis=1)
    more = (bag.png, np.log(np.exp(bag.lost).mean(axis=1)), np.log(np.exp(bag.detail).mean(axis=1)))
    return np.concatenate([parts, np.stack(more, axis=1)], axis=1)


def token_features(bag: Measured) -> np.ndarray:
    """(N, T, F) features of each token, followed by their means over its four neighbours."""
    own = np.concatenate([bag.parts, bag.lost[..., None], bag.detail[..., None]], axis=2)
    return np.concatenate([own, _neighbours(own, bag.grid)], axis=2)


def _neighbours(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    n, tokens, features = values.shape
    square = values.reshape(n, *grid, features)
    wide = np.pad(square, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    beside = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
    return (beside / 4).reshape(n, tokens, features)


def _mahalanobis(x: np.ndarray) -> np.ndarray:
    """x (N, T, F) -> squared Mahalanobis distance (N, T) of each row from the rows of the other
    pictures, with their mean and covariance."""
    n, tokens, features = x.shape
    x = (x - x.mean(axis=(0, 1))) / (x.std(axis=(0, 1)) + 1e-12)
    sums, squares = x.sum(axis=1), np.einsum("ntf,ntg->nfg", x, x)
    count = (n - 1) * tokens
    mean = (sums.sum(axis=0) - sums) / count
    covariance = (squares.sum(axis=0) - squares) / count - np.einsum("nf,ng->nfg", mean, mean)
    level = np.trace(covariance, axis1=1, axis2=2) / features
    covariance += (RIDGE * level + 1e-12)[:, None, None] * np.eye(features)
    away = x - mean[:, None]
    solved = np.linalg.solve(covariance, away.transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.maximum((away * solved).sum(axis=2), 0.0)


def _from_mean(y: np.ndarray) -> np.ndarray:
    """|y - mean of the others|, (N,)."""
    n = len(y)
    return np.abs(y - (y.sum() - y) / (n - 1))


def _from_line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|y - linear regression of the others on x|, (N,), by the leave-one-out formula of least
    squares."""
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    inverse = np.linalg.pinv(design.T @ design)
    leverage = np.einsum("nf,fg,ng->n", design, inverse, design)
    left = y - design @ (inverse @ (design.T @ y))
    return np.abs(left) / np.maximum(1 - leverage, 1e-9)


def _standardised(y: np.ndarray) -> np.ndarray:
    middle = np.median(y)
    return (y - middle) / (np.quantile(y, TAIL) - middle + 1e-12)
