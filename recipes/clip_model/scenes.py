"""Scenes in motion: which subject moves how, and where."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..default_model.painter import Scene

MOTIONS = (
    "left", "right", "nearer", "away", "jump", "rise", "sink", "still", "darker", "lighter",
)  # fmt: skip
_SIDEWAYS = ("left", "right", "left", "right", "nearer", "away", "still")  # twice: more often
_LIGHT = ("darker", "lighter")  # day turns into night, and the reverse


@dataclass(frozen=True)
class Kind:
    """Subjects that move in the same ways and places."""

    subjects: tuple[str, ...]
    places: tuple[str, ...]
    motions: tuple[str, ...]
    support: str  # as in a Layout: ground, water or air


_LAND = ("snow", "forest", "desert", "beach", "meadow", "mountains", "city")
_WALKERS = (
    "fox", "cat", "dog", "rabbit", "bear", "lion", "elephant", "horse", "penguin", "girl", "boy",
)  # fmt: skip
KINDS = (
    Kind(
        _WALKERS,
        _LAND,
        (*_SIDEWAYS, "jump"),
        "ground",
    ),
    Kind(("car", "train"), _LAND, _SIDEWAYS, "ground"),
    Kind(("boat", "duck"), ("sea",), _SIDEWAYS, "water"),
    Kind(("fish",), ("sea",), (*_SIDEWAYS, "jump"), "water"),
    Kind(
        ("bird", "butterfly", "balloon", "rocket"),
        ("beach", "meadow", "mountains", "sea", "sky", "night sky"),
        (*_SIDEWAYS, "rise", "rise", "sink", "sink"),
        "air",
    ),
)
SUBJECTS = tuple(subject for kind in KINDS for subject in kind.subjects)
PLACES = (*_LAND, "sea", "sky", "night sky")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
# The light of these does not change: a city is another one at night, the others are always dark.
_STEADY = ("city", "sky", "night sky")


@dataclass(frozen=True)
class Clip:
    """The content of a clip; the same clip is always painted with the same bytes.

    ``scene``: how it begins. ``motion``: what happens in the first two seconds.
    """

    scene: Scene
    motion: str

    def __post_init__(self) -> None:
        if self.motion not in motions_of(self.scene):
            raise ValueError(f"a {self.scene.subject} in {self.scene.place} has no {self.motion!r}")


def kind_of(subject: str) -> Kind:
    return next(kind for kind in KINDS if subject in kind.subjects)


def motions_of(scene: Scene) -> tuple[str, ...]:
    """The motions of a scene's subject; a motion that is listed twice is twice as frequent."""
    own = kind_of(scene.subject).motions
    return own if scene.place in _STEADY else own + _LIGHT


def _pick(rng: np.random.Generator, options: tuple):
    return options[int(rng.integers(len(options)))]


def random_clip(rng: np.random.Generator) -> Clip:
    """A random clip; most subjects have their natural colour, and most clips are by day."""
    kind = kind_of(_pick(rng, SUBJECTS))
    subject, place = _pick(rng, kind.subjects), _pick(rng, kind.places)
    colour = _pick(rng, COLOURS) if rng.random() < 0.4 else None
    time = _pick(rng, ("dawn", "sunset", "night")) if rng.random() < 0.25 else "day"
    seed = int(rng.integers(2**31))
    motion = _pick(rng, motions_of(Scene(subject, place)))
    if place == "night sky" or motion == "lighter":
        time = "night"
    elif motion == "darker":
        time = "day"
    elif place == "sky" and time == "night":
        time = "sunset"
    return Clip(Scene(subject, place, colour, time=time, seed=seed), motion)


def mirrored(motion: str) -> str:
    """The motion in the mirrored clip."""
    return {"left": "right", "right": "left"}.get(motion, motion)


def to_row(clip: Clip) -> dict:
    return {"scene": asdict(clip.scene), "motion": clip.motion}


def from_row(row: dict) -> Clip:
    return Clip(Scene(**row["scene"]), row["motion"])
