"""Scenes, their fixed sets of subjects, places and so on, and random scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SUBJECTS = (
    "fox", "cat", "dog", "rabbit", "bear", "lion", "elephant", "horse", "cow", "pig", "sheep",
    "penguin", "duck", "bird", "fish", "butterfly", "tree", "flower", "mushroom", "snowman",
    "girl", "boy", "house", "castle", "lighthouse", "boat", "car", "train", "bicycle", "balloon",
    "rocket", "star",
)  # fmt: skip
# Random scenes never show these; a trained model can be taught them later.
SPARE_SUBJECTS = ("robot", "teapot", "snail")
PLACES = (
    "snow", "forest", "desert", "beach", "meadow", "mountains", "city", "sea", "sky", "night sky",
)  # fmt: skip
COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "grey", "black",
)  # fmt: skip
SIZES = ("small", "medium", "big")
COUNTS = (1, 2, 3)
TIMES = ("day", "dawn", "sunset", "night")
WEATHERS = ("clear", "cloudy", "rain", "snowfall", "fog")

# Random scenes do not use weather that would make the place hard to recognize.
_PLAUSIBLE_WEATHER = {
    "snow": ("cloudy", "snowfall", "fog"),
    "forest": ("cloudy", "rain", "snowfall", "fog"),
    "desert": ("cloudy", "fog"),
    "beach": ("cloudy", "rain", "fog"),
    "meadow": ("cloudy", "rain", "fog"),
    "mountains": ("cloudy", "rain", "snowfall", "fog"),
    "city": ("cloudy", "rain", "snowfall", "fog"),
    "sky": ("cloudy", "rain"),
    "night sky": ("cloudy",),
    "sea": ("cloudy", "rain", "fog"),
}


@dataclass(frozen=True)
class Scene:
    """The content of one picture; the same scene is always painted with the same bytes.

    ``colour``: None is the subject's natural colour. ``seed`` determines pose and placement.
    Errors: ValueError for a value that is not in the sets above.
    """

    subject: str
    place: str
    colour: str | None = None
    size: str = "medium"
    count: int = 1
    time: str = "day"
    weather: str = "clear"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("subject", (*SUBJECTS, *SPARE_SUBJECTS)),
            ("place", PLACES),
            ("colour", (None, *COLOURS)),
            ("size", SIZES),
            ("count", COUNTS),
            ("time", TIMES),
            ("weather", WEATHERS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"scene {name} is {value!r}; expected one of {allowed}")


def _pick(rng: np.random.Generator, options: tuple, weights: tuple[float, ...] | None = None):
    if weights is None:
        return options[int(rng.integers(len(options)))]
    return options[int(np.searchsorted(np.cumsum(weights), rng.random(), side="right"))]


def random_scene(rng: np.random.Generator) -> Scene:
    """A random scene; size, count, time and weather mostly have their defaults."""
    subject = _pick(rng, SUBJECTS)
    place = _pick(rng, PLACES)
    colour = _pick(rng, COLOURS) if rng.random() < 0.6 else None
    size = _pick(rng, SIZES, (0.14, 0.72, 0.14))
    count = _pick(rng, COUNTS, (0.76, 0.14, 0.10))
    time = _pick(rng, TIMES[1:]) if rng.random() < 0.2 else "day"
    weather = _pick(rng, _PLAUSIBLE_WEATHER[place]) if rng.random() < 0.12 else "clear"
    if place == "night sky":
        time = "night"
    elif place == "sky" and time == "night":
        time = "sunset"
    return Scene(subject, place, colour, size, count, time, weather, int(rng.integers(2**31)))
