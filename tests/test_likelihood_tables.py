"""The functions that compute the recipe's likelihood tables."""

import json
import re
import shutil

import numpy as np
import pytest

import mlx_starflow as sf
from recipes.default_model.known import read_vocabulary, scenes_and_captions
from recipes.default_model.likelihood.__main__ import table
from recipes.default_model.likelihood.outliers import OUTLIERS
from recipes.default_model.likelihood.round_trip import PRECISIONS, round_trips
from recipes.default_model.likelihood.separation import auroc, compressed_bits, separation
from recipes.default_model.likelihood.zero_shot import draws_and_errors, zero_shot
from recipes.default_model.painter import SUBJECTS, Scene, paint, paint_many, understood
from recipes.default_model.sharpness import BUNDLE


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


def test_scenes_are_those_that_the_bundle_knows():
    known = read_vocabulary(BUNDLE)
    known["subject"] = known["subject"][:9]  # fewer than the painter paints
    scenes, captions = scenes_and_captions(40, known, 5, full=True)
    assert {s.subject for s in scenes} <= set(known["subject"]) < set(SUBJECTS)
    assert {s.place for s in scenes} <= set(known["place"])
    for scene, text in zip(scenes, captions, strict=True):
        assert set(re.findall(r"\w+", text)) <= set(known["words"])
        assert {scene.place.replace(" ", ""), scene.colour} - {None} <= set(understood(text))


@pytest.mark.slow
def test_every_table_is_made_of_a_converted_model(converted, tmp_path):
    bundle = tmp_path / "with-words"
    shutil.copytree(converted, bundle)
    words = {"subject": ["fox", "cat"], "place": ["snow", "sea", "sky"], "words": ["fox"]}
    (bundle / "vocabulary.json").write_text(json.dumps(words))
    paintings, captions, scenes = paint_many(4, 7_000_000, size=64, workers=1)
    with sf.load(bundle) as pipe:
        separated = separation(pipe, paintings, paintings, draws=1)
        assert set(separated) == {"paintings", *OUTLIERS}
        for kind in OUTLIERS:
            assert all(0 <= separated[kind][s] <= 1 for s in ("likelihood", "corrected"))
        named = zero_shot(pipe, paintings[:2], scenes[:2], draws=2)
        assert set(named) == {"1", "2", "chance"}
        errors = draws_and_errors(pipe, paintings[:2], captions[:2], draws=8)
        assert errors["1"]["log p"] > errors["4"]["log p"] > 0
    exact = round_trips(str(bundle), paintings[:1], "a fox in snow", 1.0)
    assert set(exact) == set(PRECISIONS)
