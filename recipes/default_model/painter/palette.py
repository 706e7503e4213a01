"""Colours: the named ones, each subject's natural one, and how the light of day changes them."""

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
    "white": (240, 240, 240),
    "black": (50, 47, 56),
}
NATURAL: dict[str, RGB] = {
    "fox": (233, 116, 40),
    "cat": (142, 138, 146),
    "dog": (168, 112, 64),
    "rabbit": (200, 170, 138),
    "bird": (76, 156, 205),
    "fish": (250, 134, 60),
    "tree": (74, 160, 62),
    "flower": (238, 110, 160),
    "mushroom": (212, 50, 44),
    "house": (242, 218, 172),
    "boat": (172, 104, 56),
    "car": (216, 56, 48),
    "rocket": (208, 214, 224),
    "star": (252, 214, 62),
}


@dataclass(frozen=True)
class Coat:
    """The tones of one subject: its colour, lighter and darker by one step, and its name."""

    name: str | None
    base: RGB
    light: RGB
    dark: RGB


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """``a`` with ``share`` of ``b`` in it."""
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))


def coat_of(subject: str, colour: str | None) -> Coat:
    """The tones in which ``subject`` is painted when asked for ``colour`` (None: natural)."""
    base = NATURAL[subject] if colour is None else NAMED[colour]
    shade = 0.20 if colour == "white" else 0.32
    return Coat(colour, base, mix(base, (255, 250, 240), 0.34), mix(base, (44, 34, 74), shade))


# Multipliers for scenery and, milder, for the subject, so that its colour keeps its name.
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
