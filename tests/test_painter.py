"""The scene painter: same scene, same bytes; captions within their vocabulary; shards resume."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image

from recipes.default_model.painter import (
    COLOURS,
    COUNTS,
    PLACES,
    SPARE_SUBJECTS,
    SUBJECTS,
    Scene,
    caption,
    compose,
    paint,
    paint_many,
    random_scene,
    understood,
    vocabulary,
    write_shards,
)
from recipes.default_model.painter.captions import HOME
from recipes.default_model.painter.layout import plan
from recipes.default_model.painter.palette import coat_of
from recipes.default_model.painter.pen import Pen
from recipes.default_model.painter.subjects import (
    CENTRE,
    WIDTH,
    animals,
    draw_subject,
    farm,
    nature,
    people,
    winged,
)
from recipes.default_model.painter.words import PLURAL, TOKENS

TWO_EYED = (
    "fox", "cat", "dog", "rabbit", "bear", "lion", "elephant", "horse", "cow", "pig", "sheep",
    "penguin", "duck", "bird", "butterfly", "snowman", "girl", "boy",
)  # fmt: skip


def _pixels(scene: Scene, size: int = 128) -> np.ndarray:
    return np.asarray(paint(scene, size), np.int16)


def test_same_scene_gives_the_same_bytes_and_the_seed_changes_them():
    scene = Scene("fox", "snow", seed=3)
    assert paint(scene).tobytes() == paint(scene).tobytes()
    assert (_pixels(scene) != _pixels(Scene("fox", "snow", seed=4))).any()


@pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("place", PLACES)
def test_every_subject_shows_in_every_place(place, share):
    """By default every third subject, another third in the next place."""
    first = list(PLACES).index(place) % share
    for subject in list(SUBJECTS)[first::share]:
        pictures = [_pixels(Scene(subject, place, c, seed=1), 64) for c in ("red", "blue")]
        assert pictures[0].shape == (64, 64, 3)
        changed = np.abs(pictures[0] - pictures[1]).max(-1) > 40
        assert changed.mean() > 0.03, subject


def _alone(scene: Scene) -> list[Image.Image]:
    """Each subject's own coverage, 128 x 128 pixels."""
    layout = plan(scene, np.random.default_rng([scene.seed, 1]))
    alone = (replace(layout, spots=(spot,)) for spot in layout.spots)
    return [compose._subjects(scene, one, 128).getchannel("A") for one in alone]


@pytest.mark.parametrize("subject", (*SUBJECTS, *SPARE_SUBJECTS))
def test_groups_keep_apart_and_inside_the_picture(subject):
    for seed, (count, size) in enumerate(product(COUNTS, ("medium", "big"))):
        for place in ("sea", "meadow"):
            scene = Scene(subject, place, size=size, count=count, seed=seed)
            masks = [np.asarray(m) > 40 for m in _alone(scene)]
            assert len(masks) == count
            assert np.sum(masks, axis=0).max() == 1, scene
            union = np.any(masks, axis=0)
            edges = union[0], union[-1], union[:, 0], union[:, -1]
            assert not any(edge.any() for edge in edges), scene


@pytest.mark.parametrize("subject", (*SUBJECTS, *SPARE_SUBJECTS))
def test_the_widths_that_the_layout_counts_on_are_true(subject):
    left = right = 0.0
    for turn in (-1.0, 0.0, 1.0):
        image = Image.new("RGBA", (600, 600))
        pen = Pen(image, (300, 500), 300, up=True)
        draw_subject(pen, subject, coat_of(subject, None), turn, flying=False, lit=False)
        box = image.getbbox()
        left, right = min(left, box[0] / 300 - 1), max(right, box[2] / 300 - 1)
    half, centre = WIDTH[subject] / 2, CENTRE.get(subject, 0.0)
    assert centre - half <= left + 0.02 and right - 0.02 <= centre + half
    assert right - left > WIDTH[subject] - 0.06


@pytest.mark.parametrize("colour", [None, "black", "white"])
@pytest.mark.parametrize("subject", TWO_EYED)
def test_two_eyes_show(subject, colour, monkeypatch):
    """What the eyes change in the picture are two separate patches."""
    scenes = [Scene(subject, "snow", colour, seed=seed) for seed in range(2)]
    seen = [_pixels(scene) for scene in scenes]
    for module in (animals, farm, nature, people, winged):
        monkeypatch.setattr(module, "eyes", lambda *arguments, **named: None)
    for scene, picture in zip(scenes, seen, strict=True):
        changed = np.abs(picture - _pixels(scene)).max(-1) > 60
        columns = np.flatnonzero(changed.sum(0) >= 2)
        patches = np.split(columns, np.flatnonzero(np.diff(columns) > 2) + 1)
        assert len(patches) == 2, (scene, columns)
        assert all(changed[:, patch].sum() >= 8 for patch in patches), scene


def test_every_subject_looks_most_like_itself():
    """In another pose and colour its outline and shading are nearest to its own."""

    def look(subject: str, colour: str, seed: int, flip: bool) -> np.ndarray:
        image = Image.new("RGBA", (128, 128))
        turn = np.random.default_rng(seed).random() * 2 - 1
        pen = Pen(image, (64, 110), 80, flip, tilt=0.05 * turn, up=True)
        draw_subject(pen, subject, coat_of(subject, colour), turn, flying=False, lit=False)
        cut = image.crop(image.getbbox()).resize((24, 24), Image.Resampling.BOX)
        layers = np.asarray(cut, np.float32) / 255
        shape, grey = layers[..., 3], layers[..., :3].mean(-1) * layers[..., 3]
        aspect = image.getbbox()
        wide = (aspect[2] - aspect[0]) / (aspect[3] - aspect[1])
        return np.concatenate([shape.ravel(), grey.ravel(), [6 * wide]])

    known = np.stack([look(s, "green", 0, flip) for s in SUBJECTS for flip in (False, True)])
    for i, subject in enumerate(SUBJECTS):
        for seed, colour in enumerate(("blue", "red", "purple"), start=1):
            found = look(subject, colour, seed, flip=bool(seed % 2))
            nearest = np.linalg.norm(known - found, axis=1).argmin() // 2
            assert nearest == i, (subject, colour, SUBJECTS[nearest])


def test_captions_use_only_the_vocabulary_and_tell_what_is_shown():
    rng = np.random.default_rng(0)
    words = set(vocabulary()["words"])
    placed = coloured = asked = away = bare = 0
    for _ in range(3000):
        scene = random_scene(rng)
        text = caption(scene, rng)
        assert set(text.replace(",", "").split()) <= words, text
        told = understood(text)
        assert set(told) <= set(TOKENS), text
        assert scene.subject in told or ("child" in told and scene.subject in ("girl", "boy"))
        if scene.count > 1:
            assert {2: "two", 3: "three"}[scene.count] in told or PLURAL in told, text
        if scene.colour is not None:
            asked += 1
            coloured += scene.colour in told
        else:
            assert not set(told) & set(COLOURS), text
        placed += scene.place.replace(" ", "") in told
        if scene.place not in HOME[scene.subject]:
            away += scene.place.replace(" ", "") not in told
        bare += told == [scene.subject]
    assert coloured / asked > 0.98
    assert 0.9 < placed / 3000 < 0.96
    assert away < 60  # a prompt without a place mostly means the subject's home
    assert bare > 10  # "a fox" alone


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="subject is 'dragon'"):
        Scene("dragon", "snow")


def test_paint_many_continues_one_series():
    images, captions, scenes = paint_many(6, seed=9, size=32, workers=1)
    later, later_captions, later_scenes = paint_many(2, seed=9, size=32, workers=1, start=4)
    assert images.shape == (6, 32, 32, 3) and images.dtype == np.uint8
    assert (images[4:] == later).all()
    assert captions[4:] == later_captions and scenes[4:] == later_scenes


def test_shards_resume_where_they_stopped(tmp_path):
    first, *_ = write_shards(tmp_path, count=4, seed=2, size=32, shard=4, workers=1)
    stamp = first.stat().st_mtime_ns
    paths = list(write_shards(tmp_path, count=6, seed=2, size=32, shard=4, workers=1))
    assert [p.name for p in paths] == ["paintings-2-00000.npz", "paintings-2-00001.npz"]
    assert first.stat().st_mtime_ns == stamp
    with np.load(paths[1]) as held:
        whole, captions, _ = paint_many(6, seed=2, size=32, workers=1)
        assert (held["images"] == whole[4:]).all()
        assert held["captions"].tolist() == captions[4:]
