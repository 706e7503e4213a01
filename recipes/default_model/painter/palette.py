"""Named colours, each subject's natural colour, and the light at each time of day."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]

WHITE: RGB = (250, 248, 244)
INK: RGB = (40, 32, 40)
PINK: RGB = (240, 150, 165)

NAMED: dict[str, RGB] = {
    "red": (214, 38, 44),
    "orange": (246, 136, 26),
    "yellow": (250, 212, 40),
    "green": (58, 168, 66),
    "blue": (44, 98, 214),
    "purple": (138, 62, 176),
    "pink": (246, 134, 176),
    "brown": (132, 82, 46),
    "white": (240, 240, 240),
    "grey": (146, 148, 158),
    "black": (50, 47, 56),
}
# A natural colour that is similar to a named one is the named one or very close to it, so that the
# two need not be distinguished.
NATURAL: dict[str, RGB] = {
    "fox": (236, 120, 38),
    "cat": NAMED["grey"],
    "dog": (200, 146, 88),
    "rabbit": (206, 178, 148),
    "bear": NAMED["brown"],
    "lion": (232, 172, 78),
    "elephant": NAMED["grey"],
    "horse": NAMED["brown"],
    "cow": NAMED["white"],
    "pig": NAMED["pink"],
    "sheep": (246, 240, 228),
    "penguin": NAMED["black"],
    "duck": NAMED["yellow"],
    "bird": (54, 116, 218),
    "fish": (250, 134, 48),
    "butterfly": NAMED["orange"],
    "tree": (66, 162, 62),
    "flower": NAMED["pink"],
    "mushroom": (212, 50, 44),
    "snowman": NAMED["white"],
    "girl": NAMED["red"],
    "boy": NAMED["blue"],
    "house": (242, 218, 172),
    "castle": NAMED["grey"],
    "lighthouse": NAMED["red"],
    "boat": NAMED["brown"],
    "car": (216, 56, 48),
    "train": NAMED["green"],
    "bicycle": NAMED["red"],
    "balloon": NAMED["red"],
    "rocket": (222, 226, 232),
    "star": (250, 212, 56),
    "robot": (128, 170, 190),
    "teapot": (86, 148, 206),
    "snail": (206, 122, 72),
}


@dataclass(frozen=True)
class Coat:
    """The tones of one subject: name, base colour, and a lighter and a darker tone."""

    name: str | None
    base: RGB
    light: RGB
    dark: RGB


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """Interpolate from ``a`` (share 0) to ``b`` (share 1)."""
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))


def coat_of(subject: str, colour: str | None) -> Coat:
    """The tones in which ``subject`` is painted when asked for ``colour`` (None: natural)."""
    base = NATURAL[subject] if colour is None else NAMED[colour]
    shade = 0.20 if colour == "white" else 0.32
    return Coat(colour, base, mix(base, (255, 250, 240), 0.34), mix(base, (44, 34, 74), shade))


# Multipliers for the scenery, and weaker ones for the subject, so that its colour stays
# recognizable.
SCENERY_LIGHT: dict[str, RGB] = {
    "day": (1.0, 1.0, 1.0),
    "dawn": (1.0, 0.87, 0.91),
    "sunset": (1.0, 0.78, 0.66),
    "night": (0.46, 0.51, 0.72),
}
SUBJECT_LIGHT: dict[str, RGB] = {
    "day": (1.0, 1.0, 1.0),
    "dawn": (1.0, 0.95, 0.97),
    "sunset": (1.0, 0.91, 0.84),
    "night": (0.87, 0.88, 0.97),
}
