"""Captions for scenes: many phrasings with a small, fixed vocabulary."""

from __future__ import annotations

import numpy as np

from .scene import COLOURS, PLACES, SIZES, SUBJECTS, TIMES, WEATHERS, Scene
from .words import known_words, names, plural

# The usual places of a subject; captions leave these out far more often.
HOME = {
    "fox": ("forest", "snow"), "cat": ("city", "meadow"), "dog": ("meadow", "beach"),
    "rabbit": ("meadow", "snow"), "bear": ("forest", "mountains"), "lion": ("desert", "meadow"),
    "elephant": ("meadow", "desert"), "horse": ("meadow", "mountains"),
    "cow": ("meadow", "mountains"), "pig": ("meadow",), "sheep": ("meadow", "mountains"),
    "penguin": ("snow",), "duck": ("sea", "meadow"), "bird": ("sky", "forest"), "fish": ("sea",),
    "butterfly": ("meadow", "sky"), "tree": ("meadow",), "flower": ("meadow",),
    "mushroom": ("forest",), "snowman": ("snow",), "girl": ("meadow", "beach"),
    "boy": ("meadow", "beach"), "house": ("meadow", "mountains"), "castle": ("mountains", "meadow"),
    "lighthouse": ("sea", "beach"), "boat": ("sea",), "car": ("city",),
    "train": ("mountains", "meadow"), "bicycle": ("city", "meadow"),
    "balloon": ("sky", "mountains"), "rocket": ("night sky",), "star": ("night sky",),
}  # fmt: skip
_COUNT_WORDS = {
    2: ("two", "two", "two", "2", "a pair of", "a couple of"),
    3: ("three", "three", "three", "3"),
}
_SIZE_WORDS = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("",),
    "big": ("big", "big", "large", "huge"),
}
_OTHER_COLOUR_WORDS = {"grey": "gray", "purple": "violet", "yellow": "golden"}
_PLACE_PHRASES = {
    "snow": ("in snow", "in the snow", "on snow", "in a snowy place", "in winter"),
    "forest": ("in a forest", "in the forest", "in the woods"),
    "desert": ("in the desert", "in a desert", "in the dunes"),
    "beach": ("on the beach", "on a beach", "at the beach", "on the shore"),
    "meadow": ("in a meadow", "in the meadow", "in a field", "on the grass"),
    "mountains": ("in the mountains", "in mountains", "in front of mountains"),
    "city": ("in the city", "in a city", "in the town", "in the street"),
    "sea": ("in the sea", "on the sea", "over the sea", "at sea", "by the sea", "in the ocean"),
    "sky": ("in the sky", "in a blue sky", "above the clouds", "in the clouds"),
    "night sky": ("in the night sky", "in a night sky", "among the stars", "in a starry sky"),
}
_TIME_PHRASES = {
    "day": ("by day", "in daylight"),
    "dawn": ("at dawn", "at sunrise", "in the morning"),
    "sunset": ("at sunset", "in the evening", "at dusk"),
    "night": ("at night", "by night", "in the moonlight"),
}
_TIME_TAGS = {
    "day": ("day",),
    "dawn": ("dawn", "sunrise", "morning"),
    "sunset": ("sunset", "evening"),
    "night": ("night", "moonlight"),
}
_WEATHER_PHRASES = {
    "clear": ("under a clear sky", "in sunshine"),
    "cloudy": ("under clouds", "under a cloudy sky", "with clouds"),
    "rain": ("in the rain", "in rain", "with rain"),
    "snowfall": ("in falling snow", "with snow falling", "in a snowfall"),
    "fog": ("in fog", "in the fog", "in mist"),
}
_WEATHER_TAGS = {
    "clear": ("clear", "sunny"),
    "cloudy": ("cloudy", "clouds"),
    "rain": ("rain", "rainy"),
    "snowfall": ("snowfall", "falling snow"),
    "fog": ("fog", "foggy", "mist"),
}
_OPENINGS = (
    "a painting of", "a picture of", "a drawing of", "an illustration of", "a scene with",
    "an image of", "a photo of", "there is", "this is", "painting of", "picture of", "draw me",
    "please draw",
)  # fmt: skip


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _noun(scene: Scene, rng: np.random.Generator) -> str:
    draw = rng.random()
    if scene.subject in ("girl", "boy") and draw < 0.12:
        name = "child"
    else:
        name = _choose(rng, names(scene.subject)) if draw > 0.75 else scene.subject
    return plural(name) if scene.count > 1 else name


def _noun_phrase(scene: Scene, rng: np.random.Generator, bare: bool) -> str:
    words = []
    if scene.size != "medium" and rng.random() < 0.9:
        words.append(_choose(rng, _SIZE_WORDS[scene.size]))
    after = ""
    if scene.colour is not None and rng.random() < 0.995:
        colour = scene.colour
        if rng.random() < 0.15:
            colour = _OTHER_COLOUR_WORDS.get(colour, colour)
        if rng.random() < 0.06:
            after = f", {colour}"
        else:
            words.append(colour)
    noun = _noun(scene, rng)
    phrase = " ".join([*words, noun])
    draw = rng.random()
    if scene.count > 1:
        # The number may be left out if the plural differs from the singular.
        told = draw < 0.93 or noun == scene.subject
        return (f"{_choose(rng, _COUNT_WORDS[scene.count])} {phrase}" if told else phrase) + after
    if bare:
        return phrase + after
    if draw < 0.08:
        return ("one " if draw < 0.03 else "the ") + phrase + after
    return _article(phrase) + after


def caption(scene: Scene, rng: np.random.Generator, action: str = "") -> str:
    """One caption of the scene, in lower case.

    It always names the subject, nearly always a place that is not usual for the subject and a
    colour that is not natural, and mostly size, count, time and weather that are not the defaults.
    ``action``: what the subject does, such as "walks to the left".
    """
    says_place = rng.random() > (0.3 if scene.place in HOME[scene.subject] else 0.015)
    told_time = scene.place != "night sky" and rng.random() < (
        0.94 if scene.time != "day" else 0.05
    )
    told_weather = rng.random() < (0.94 if scene.weather != "clear" else 0.04)
    tags = rng.random() < 0.22
    noun = _noun_phrase(scene, rng, bare=tags and rng.random() < 0.7)
    if action:
        noun += f" {action}"
    if tags:
        parts = [noun]
        if says_place:
            parts.append(
                scene.place if rng.random() < 0.7 else _choose(rng, _PLACE_PHRASES[scene.place])
            )
        if told_time:
            parts.append(_choose(rng, _TIME_TAGS[scene.time]))
        if told_weather:
            parts.append(_choose(rng, _WEATHER_TAGS[scene.weather]))
        if rng.random() < 0.3:
            rng.shuffle(parts)
        return ", ".join(parts)
    opening = ""
    if rng.random() < 0.3:
        opening = _choose(rng, _OPENINGS)
        if scene.count > 1:
            opening = {"there is": "there are", "this is": "there are"}.get(opening, opening)
        opening += " "
    tail = []
    if told_time:
        tail.append(
            " " + _choose(rng, _TIME_PHRASES[scene.time])
            if rng.random() < 0.7
            else ", " + _choose(rng, _TIME_TAGS[scene.time])
        )
    if told_weather:
        tail.append(
            " " + _choose(rng, _WEATHER_PHRASES[scene.weather])
            if rng.random() < 0.7
            else ", " + _choose(rng, _WEATHER_TAGS[scene.weather])
        )
    tail.sort(key=lambda part: part.startswith(","))
    if not says_place:
        return opening + noun + "".join(tail)
    place = _choose(rng, _PLACE_PHRASES[scene.place])
    if rng.random() < 0.1:
        return f"{place}, {opening}{noun}" + "".join(tail)
    return f"{opening}{noun} {place}" + "".join(tail)


def vocabulary() -> dict[str, list[str]]:
    """The names of everything that can be drawn, by kind; under ``"words"`` all known words."""
    return {
        "subjects": list(SUBJECTS),
        "places": list(PLACES),
        "colours": list(COLOURS),
        "sizes": list(SIZES),
        "counts": ["one", "two", "three"],
        "times": list(TIMES),
        "weathers": list(WEATHERS),
        "words": known_words(),
    }
