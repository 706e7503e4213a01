"""Captions for scenes: many phrasings over one small, closed list of words."""

from __future__ import annotations

import numpy as np

from .scene import COLOURS, PLACES, SIZES, SUBJECTS, TIMES, WEATHERS, Scene

_PLURALS = {"fox": "foxes", "fish": "fish"}
_COUNT_WORDS = {2: ("two", "two", "two", "2"), 3: ("three", "three", "three", "3")}
_SIZE_WORDS = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("",),
    "big": ("big", "big", "large", "huge"),
}
_PLACE_PHRASES = {
    "snow": ("in snow", "in the snow", "on snow", "in a snowy place"),
    "forest": ("in a forest", "in the forest", "in the woods"),
    "desert": ("in the desert", "in a desert", "in the sand of the desert"),
    "beach": ("on the beach", "on a beach", "at the beach"),
    "meadow": ("in a meadow", "in the meadow", "on a green meadow"),
    "mountains": ("in the mountains", "in mountains", "in front of mountains"),
    "city": ("in the city", "in a city", "in the town"),
    "night sky": ("in the night sky", "in a night sky", "under the night sky", "in a starry sky"),
    "sea": ("in the sea", "on the sea", "over the sea", "at sea", "by the sea"),
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
    "clear": ("under a clear sky",),
    "cloudy": ("under clouds", "under a cloudy sky", "with clouds"),
    "rain": ("in the rain", "in rain", "with rain"),
    "snowfall": ("in falling snow", "with snow falling", "in a snowfall"),
    "fog": ("in fog", "in the fog", "in mist"),
}
_WEATHER_TAGS = {
    "clear": ("clear",),
    "cloudy": ("cloudy", "clouds"),
    "rain": ("rain", "rainy"),
    "snowfall": ("snowfall", "falling snow"),
    "fog": ("fog", "foggy", "mist"),
}
_OPENINGS = (
    "a painting of", "a picture of", "a drawing of", "an illustration of", "a scene with",
    "there is", "this is", "painting of", "picture of",
)  # fmt: skip
_OTHER_WORDS = ("a", "an", "the", "are", "there", ",", "one")


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _noun_phrase(scene: Scene, rng: np.random.Generator, bare: bool) -> str:
    plural = scene.count > 1
    noun = _PLURALS.get(scene.subject, scene.subject + "s") if plural else scene.subject
    words = []
    if scene.size != "medium" and rng.random() < 0.9:
        words.append(_choose(rng, _SIZE_WORDS[scene.size]))
    if scene.colour is not None and rng.random() < 0.98:
        words.append(scene.colour)
    words.append(noun)
    phrase = " ".join(words)
    if plural:
        # A dropped number leaves the plural, which still says "more than one".
        return (
            f"{_choose(rng, _COUNT_WORDS[scene.count])} {phrase}" if rng.random() < 0.95 else phrase
        )
    if bare:
        return phrase
    draw = rng.random()
    return f"one {phrase}" if draw < 0.03 else f"the {phrase}" if draw < 0.08 else _article(phrase)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption of the scene, in lower case.

    The subject is always told and the place nearly always; colour whenever it is not the natural
    one (nearly always); size, count, time and weather mostly where they are not the defaults.
    """
    says_place = rng.random() < 0.96
    told_time = scene.place != "night sky" and rng.random() < (
        0.92 if scene.time != "day" else 0.04
    )
    told_weather = rng.random() < (0.92 if scene.weather != "clear" else 0.03)
    tags = rng.random() < 0.25
    noun = _noun_phrase(scene, rng, bare=tags and rng.random() < 0.7)
    if tags:
        parts = [noun]
        if says_place:
            parts.append(
                scene.place if rng.random() < 0.7 else _choose(rng, _PLACE_PHRASES[scene.place])
            )
        extra = []
        if told_time:
            extra.append(_choose(rng, _TIME_TAGS[scene.time]))
        if told_weather:
            extra.append(_choose(rng, _WEATHER_TAGS[scene.weather]))
        if len(extra) == 2 and rng.random() < 0.5:
            extra.reverse()
        return ", ".join(parts + extra)
    opening = ""
    if rng.random() < 0.22:
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
    place = " " + _choose(rng, _PLACE_PHRASES[scene.place]) if says_place else ""
    return opening + noun + place + "".join(tail)


def vocabulary() -> dict[str, list[str]]:
    """What can be drawn, by kind, and under ``"words"`` every word a caption can use."""
    phrases = [*SUBJECTS, *(_PLURALS.get(s, s + "s") for s in SUBJECTS), *COLOURS, *PLACES]
    phrases += [*_OPENINGS, *_OTHER_WORDS]
    for table in (
        _COUNT_WORDS, _SIZE_WORDS, _PLACE_PHRASES, _TIME_PHRASES, _TIME_TAGS, _WEATHER_PHRASES,
        _WEATHER_TAGS,
    ):  # fmt: skip
        phrases += [phrase for options in table.values() for phrase in options]
    return {
        "subjects": list(SUBJECTS),
        "places": list(PLACES),
        "colours": list(COLOURS),
        "sizes": list(SIZES),
        "counts": ["one", "two", "three"],
        "times": list(TIMES),
        "weathers": list(WEATHERS),
        "words": sorted({word for phrase in phrases for word in phrase.split()}),
    }
