"""The painter of clips: motions, captions and the words for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recipes.clip_model.captions import LEXICON, clip_caption, clip_vocabulary, tells_all
from recipes.clip_model.moving import course_of, darkness_at, spot_at
from recipes.clip_model.painting import paint_clip
from recipes.clip_model.scenes import (
    KINDS,
    MOTIONS,
    PLACES,
    SUBJECTS,
    Clip,
    from_row,
    mirrored,
    motions_of,
    random_clip,
    to_row,
)
from recipes.default_model.painter import Scene, understood
from recipes.default_model.tokenizer import build_core

SHOWN = 17  # frames of a training clip


def clips(count: int, seed: int = 0) -> list[Clip]:
    return [random_clip(np.random.default_rng([seed, i])) for i in range(count)]


def test_random_clips_have_every_subject_place_and_motion():
    drawn = clips(2000)
    assert {clip.scene.subject for clip in drawn} == set(SUBJECTS)
    assert {clip.scene.place for clip in drawn} == set(PLACES)
    assert {clip.motion for clip in drawn} == set(MOTIONS)
    assert all(from_row(to_row(clip)) == clip for clip in drawn)


def test_what_cannot_happen_is_refused():
    with pytest.raises(ValueError, match="train in city has no 'jump'"):
        Clip(Scene("train", "city"), "jump")
    assert "darker" in motions_of(Scene("fox", "snow"))
    assert "darker" not in motions_of(Scene("fox", "city"))


def test_a_clip_is_painted_with_the_same_bytes_and_a_longer_one_begins_with_it():
    for clip in clips(6):
        short, long = paint_clip(clip, frames=5), paint_clip(clip, frames=9)
        assert short.shape == (5, 64, 64, 3) and short.dtype == np.uint8
        assert np.array_equal(short, long[:5])


def _changes(clip: Clip) -> dict[str, float]:
    """How far the subject has moved in a training clip, and how much darker it is."""
    course = course_of(clip)
    first, last = (spot_at(clip, course, frame) for frame in (0, SHOWN - 1))
    light = [darkness_at(clip, course, frame) for frame in (0, SHOWN - 1)]
    return {
        "x": last.x - first.x,
        "height": last.height - first.height,
        "base": last.base - first.base,
        "dark": 0.0 if light[0] is None else light[1] - light[0],
    }


def test_every_motion_goes_where_its_name_says():
    expected = {
        "left": ("x", -0.25), "right": ("x", 0.25), "nearer": ("height", 0.15),
        "away": ("height", -0.15), "rise": ("base", -0.3), "sink": ("base", 0.3),
        "darker": ("dark", 0.7), "lighter": ("dark", -0.7),
    }  # fmt: skip
    for clip in clips(400):
        changes = _changes(clip)
        if clip.motion in expected:
            name, least = expected[clip.motion]
            assert changes[name] * np.sign(least) > abs(least), clip
        for name, most in (("x", 0.2), ("height", 0.01), ("dark", 0.0)):
            if expected.get(clip.motion, ("",))[0] != name:
                assert abs(changes[name]) <= most, (clip, name)


def test_a_motion_goes_back_the_same_way():
    for clip in clips(40):
        course = replace(course_of(clip), half=20.0)
        there, back = spot_at(clip, course, 4), spot_at(clip, course, 36)
        assert abs(there.base - back.base) < 0.08 and abs(there.height - back.height) < 1e-6


def test_nothing_moves_in_a_still_clip_on_land():
    frames = paint_clip(Clip(Scene("fox", "snow", seed=1), "still"), frames=5)
    assert (frames == frames[0]).all()


def test_only_the_light_changes_when_it_gets_dark():
    scene = Scene("fox", "mountains", seed=4)
    frames = paint_clip(Clip(scene, "darker"), frames=SHOWN)
    assert np.array_equal(frames[0], paint_clip(Clip(scene, "still"), frames=1)[0])
    brightness = frames.mean((1, 2, 3))
    assert brightness[-1] < 0.6 * brightness[0]


def test_captions_are_understood_and_tell_no_other_motion():
    told = 0
    for i, clip in enumerate(clips(1500)):
        text = clip_caption(clip, np.random.default_rng([5, i]))
        said = understood(text, LEXICON)
        assert set(said) <= set(LEXICON.tokens), text
        assert not {motion for motion in MOTIONS if motion in said} - {clip.motion}, text
        told += clip.motion in said
    assert told > 0.9 * 1500


def test_a_caption_that_tells_all_is_found_soon():
    for i, clip in enumerate(clips(50)):
        rng = np.random.default_rng([6, i])
        assert any(tells_all(clip_caption(clip, rng), clip) for _ in range(60)), clip


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("a fox that walks", "fox move"),
        ("a boat that passes", "boat move"),
        ("day into night", "darker"),
        ("The sun rises over the mountains.", "lighter mountains"),
        ("a fox walks to the left in the snow", "fox move left snow"),
        ("a bird flying from left to right", "bird move right"),
        ("a rabbit jumps up and down", "rabbit jump"),
        ("a cat does not move", "cat still"),
        ("A video with 8 fps:\na red car drives towards us\n", "clip red car move nearer"),
        ("An image:\na fox in snow\n", "fox snow"),
        ("a video of a rocket taking off at night", "rocket rise night"),
    ],
)
def test_words_and_the_tokens_that_they_mean(text, tokens):
    assert understood(text, LEXICON) == tokens.split()
    assert build_core(LEXICON).encode(text).tokens[1:] == tokens.split()


def test_pictures_have_their_own_words():
    assert understood("a fox walks to the left") == ["fox", "?"]
    assert "walks" in clip_vocabulary()["words"] and "left" in clip_vocabulary()["words"]


def test_mirrored_motions():
    assert {mirrored(mirrored(motion)) for motion in MOTIONS} == set(MOTIONS)
    assert mirrored("left") == "right" and mirrored("jump") == "jump"


def test_every_kind_has_a_motion_to_the_side():
    assert all({"left", "right", "still"} <= set(kind.motions) for kind in KINDS)
