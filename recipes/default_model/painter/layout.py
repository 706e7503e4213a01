"""Positions and support of the subjects of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .scene import Scene
from .subjects import CENTRE, FLYING_WIDTH, SCALE, WIDTH

_HEIGHT = {"small": 0.36, "medium": 0.57, "big": 0.72}
_GAP = 0.045  # between neighbours, as a share of the picture
_UPRIGHT = ("house", "castle", "lighthouse", "car", "train")  # tilted only a little
_BASE = {"small": 0.84, "medium": 0.90, "big": 0.94}


@dataclass(frozen=True)
class Spot:
    """One subject: its origin and height, as fractions of the picture, and its pose."""

    x: float
    base: float
    height: float
    flip: bool
    tilt: float
    turn: float


@dataclass(frozen=True)
class Layout:
    """All spots, and their support: ground, water, island, cloud, puddle or air."""

    spots: tuple[Spot, ...]
    support: str

    @property
    def flying(self) -> bool:
        return self.support == "air"


def _support(scene: Scene, coin: float) -> str:
    subject, place = scene.subject, scene.place
    if subject in ("star", "butterfly", "balloon"):
        return "air"
    if subject in ("bird", "rocket") and (place in ("sea", "sky", "night sky") or coin < 0.25):
        return "air"
    if place == "sea":
        return "water" if subject in ("boat", "fish", "duck") else "island"
    if place in ("sky", "night sky"):
        return "cloud"
    return "puddle" if subject in ("fish", "boat") else "ground"


def plan(scene: Scene, rng: np.random.Generator) -> Layout:
    """Place one to three subjects side by side; three in the air form a triangle.

    They do not overlap and stay inside the picture, except that a single big one may be cropped.
    """
    support = _support(scene, rng.random())
    width = WIDTH[scene.subject]
    if support == "air":
        width = FLYING_WIDTH.get(scene.subject, width)
    height = _HEIGHT[scene.size] * SCALE.get(scene.subject, 1.0) * (0.95 + 0.1 * rng.random())
    triangle = support == "air" and scene.count == 3
    columns = 2 if triangle else scene.count
    if scene.count == 1:
        height = min(height, 0.94 / width)
    else:
        height *= 0.82 if scene.count == 2 else 0.72
        height = min(height, (0.94 - _GAP * (columns - 1)) / (width * columns))
    if support == "air":
        height = min(height, 0.38 if triangle else 0.64)
    step = width * height + _GAP
    free = 0.96 - step * columns + _GAP
    middle = 0.5 + (rng.random() - 0.5) * min(0.14, max(0.0, free))
    flip = rng.random() < 0.5
    spots = []
    for i in range(scene.count):
        jitter = rng.random(4)
        mirrored = flip if scene.count == 1 or jitter[0] < 0.7 else not flip
        x = middle + (i - (scene.count - 1) / 2) * step * (0.5 if triangle else 1.0)
        x -= CENTRE.get(scene.subject, 0.0) * height * (-1 if mirrored else 1)
        base = _BASE[scene.size] + 0.02 * (jitter[1] - 0.5) * 2
        if scene.count > 1:
            base -= 0.03
        tilt = (jitter[2] - 0.5) * (0.03 if scene.subject in _UPRIGHT else 0.10)
        if scene.count > 1:
            tilt *= 0.4
        if support == "air":
            base = 0.50 + height * 0.5 + 0.06 * (jitter[1] - 0.5) * 2
            if triangle:
                base = 0.5 + 0.02 * (jitter[1] - 0.5) + (-0.02 if i == 1 else height + 0.02)
            tilt *= 0.0 if scene.subject == "balloon" else 2.0
            if scene.subject == "rocket":
                lean = 0.35 if scene.count == 1 else 0.15
                tilt += lean if mirrored else -lean
            x += math.sin(tilt) * height / 2  # in the air, tilt about the centre
        elif support == "puddle" and scene.subject == "fish":
            base -= 0.07
        elif support == "water":
            base -= 0.08 if scene.subject == "boat" else 0.02
        elif support in ("island", "cloud"):
            base -= 0.04
        spots.append(Spot(x, base, height, mirrored, tilt, float(jitter[3] * 2 - 1)))
    return Layout(tuple(spots), support)


def box_of(scene: Scene, size: int) -> np.ndarray:
    """The mask (size, size) of a box around the subject of a scene with one subject."""
    spot = plan(scene, np.random.default_rng([scene.seed, 1])).spots[0]
    half = 0.5 * max(WIDTH[scene.subject], 1.0) * spot.height + 0.06
    rows = (spot.base - spot.height - 0.08, spot.base + 0.08)
    y, x = (np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size
    inside = ((y >= rows[0]) & (y <= rows[1]))[:, None] & (np.abs(x - spot.x) <= half)[None]
    return inside
