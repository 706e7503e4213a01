"""The scene painter: same scene, same bytes; captions within their vocabulary; shards resume."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.default_model.painter import (
    PLACES,
    SUBJECTS,
    Scene,
    caption,
    paint,
    paint_many,
    random_scene,
    vocabulary,
    write_shards,
)


def _pixels(scene: Scene, size: int = 128) -> np.ndarray:
    return np.asarray(paint(scene, size), np.int16)


def test_same_scene_gives_the_same_bytes_and_the_seed_changes_them():
    scene = Scene("fox", "snow", seed=3)
    assert paint(scene).tobytes() == paint(scene).tobytes()
    assert (_pixels(scene) != _pixels(Scene("fox", "snow", seed=4))).any()


@pytest.mark.parametrize("place", PLACES)
def test_every_subject_shows_in_every_place(place):
    for subject in SUBJECTS:
        pictures = [_pixels(Scene(subject, place, c, seed=1), 64) for c in ("red", "blue")]
        assert pictures[0].shape == (64, 64, 3)
        changed = np.abs(pictures[0] - pictures[1]).max(-1) > 40
        assert changed.mean() > 0.03, subject


def test_captions_use_only_the_vocabulary_and_tell_subject_and_colour():
    rng = np.random.default_rng(0)
    words = set(vocabulary()["words"])
    placed = coloured = asked = 0
    for _ in range(2000):
        scene = random_scene(rng)
        text = caption(scene, rng)
        used = text.replace(",", " ,").split()
        assert set(used) <= words, text
        assert scene.subject in text, text
        if scene.colour is not None:
            asked += 1
            coloured += scene.colour in used
        placed += len(used) > 3
    assert coloured / asked > 0.95
    assert placed > 1000


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
