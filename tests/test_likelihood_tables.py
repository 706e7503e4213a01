"""The measuring instruments of the recipe's likelihood tables, without a model."""

import numpy as np
import pytest

from recipes.default_model.likelihood.__main__ import table
from recipes.default_model.likelihood.outliers import OUTLIERS
from recipes.default_model.likelihood.separation import auroc, compressed_bits
from recipes.default_model.painter import Scene, paint


def test_auroc():
    assert auroc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auroc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 0.0
    assert auroc(np.array([1.0, 3.0]), np.array([2.0, 2.0])) == 0.5
    assert auroc(np.array([1.0]), np.array([1.0])) == 0.5


@pytest.mark.parametrize("kind", OUTLIERS)
def test_outliers_are_pictures_drawn_from_the_seed(kind):
    painting = np.asarray(paint(Scene("fox", "snow", seed=3)))
    once, again, other = (
        OUTLIERS[kind](painting, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert once.shape == painting.shape and once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other) and not np.array_equal(once, painting)


def test_outliers_keep_what_they_say():
    painting = np.asarray(paint(Scene("fox", "snow", seed=3)))
    rng = np.random.default_rng(1)
    assert np.array_equal(
        np.sort(OUTLIERS["swapped colours"](painting, rng), axis=2), np.sort(painting, axis=2)
    )
    shuffled = OUTLIERS["shuffled patches"](painting, rng)
    assert np.array_equal(np.sort(shuffled.reshape(-1)), np.sort(painting.reshape(-1)))
    assert np.ptp(OUTLIERS["constant"](painting, rng).reshape(-1, 3), axis=0).max() == 0


def test_complexity_orders_plain_and_noisy_pictures():
    painting = np.asarray(paint(Scene("fox", "snow", seed=3)))
    rng = np.random.default_rng(1)
    plain, noisy = (compressed_bits(OUTLIERS[k](painting, rng)) for k in ("constant", "noise"))
    assert plain < compressed_bits(painting) < noisy
    assert noisy > 7.9  # independent bytes cannot be compressed


def test_tables_are_markdown():
    text = table({"a": {"x": 1.0}, "b": {"x": 0.5, "y": 2.0}})
    assert text.splitlines() == ["| | x | y |", "|---|---|---|", "| a | 1 |  |", "| b | 0.5 | 2 |"]
