"""Subjects by name: how each is drawn, how wide it is, and where it stays."""

from __future__ import annotations

from ..palette import Coat
from ..pen import Pen
from . import animals, things

# Reach to the left and right of the origin, in units of the subject's height.
WIDTH = {
    "fox": 1.0, "cat": 0.9, "dog": 0.84, "rabbit": 0.66, "bird": 1.28, "fish": 1.26, "tree": 0.88,
    "flower": 0.76, "mushroom": 0.98, "house": 1.08, "boat": 1.16, "car": 1.36, "rocket": 0.72,
    "star": 1.06,
}  # fmt: skip
# Where the drawing's middle lies, right of the origin.
CENTRE = {"fox": 0.14, "cat": 0.1, "dog": 0.03}
# Wide subjects are drawn with a smaller unit so that all of them take a like share of the picture.
SCALE = {"fish": 0.86, "bird": 0.84, "car": 0.9, "house": 0.92, "boat": 0.92, "star": 0.86}

_DRAWERS = {
    "fox": animals.fox, "cat": animals.cat, "dog": animals.dog, "rabbit": animals.rabbit,
    "bird": animals.bird, "fish": animals.fish, "tree": things.tree, "flower": things.flower,
    "mushroom": things.mushroom, "house": things.house, "boat": things.boat, "car": things.car,
    "rocket": things.rocket, "star": things.star,
}  # fmt: skip


def draw_subject(pen: Pen, name: str, coat: Coat, turn: float, flying: bool, lit: bool) -> None:
    """Draw one subject; ``turn`` in [-1, 1] turns its head or leans it."""
    if name in ("bird", "rocket"):
        _DRAWERS[name](pen, coat, turn, flying=flying)
    elif name == "house":
        _DRAWERS[name](pen, coat, turn, lit=lit)
    else:
        _DRAWERS[name](pen, coat, turn)
