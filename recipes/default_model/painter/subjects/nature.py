"""Plants, snowman and star, about one unit high, on y = 0."""

from __future__ import annotations

import math

from ..palette import INK, WHITE, Coat, mix
from ..pen import Pen, smooth
from .features import eyes, is_dark


def tree(pen: Pen, coat: Coat, turn: float) -> None:
    bark = (128, 86, 54)
    pen.poly(
        [(-0.13, 0), (-0.07, 0.12), (-0.065, 0.5), (0.065, 0.5), (0.07, 0.12), (0.13, 0)], bark
    )
    pen.poly(
        [(0.02, 0.02), (0.015, 0.5), (0.065, 0.5), (0.07, 0.12), (0.13, 0)], mix(bark, INK, 0.3)
    )
    t = turn * 0.03
    for x, y, r in ((-0.24, 0.5, 0.19), (0.25, 0.5, 0.19), (0, 0.5, 0.22)):
        pen.oval(x, y, r, r * 0.9, coat.dark)
    for x, y, r in ((-0.2, 0.62, 0.21), (0.21, 0.6, 0.2), (t, 0.76, 0.25), (0, 0.58, 0.2)):
        pen.oval(x, y, r, r * 0.92, coat.base)
    for x, y, r in ((-0.22, 0.68, 0.1), (t - 0.08, 0.86, 0.12), (0.12, 0.66, 0.09)):
        pen.oval(x, y, r, r * 0.8, coat.light)


def flower(pen: Pen, coat: Coat, turn: float) -> None:
    stem, leaf = (58, 138, 58), (84, 168, 72)
    t = turn * 0.04
    pen.stroke([(0, 0.0), (0.03 + t, 0.25), (t, 0.62)], 0.055, stem)
    pen.blob([(0.01, 0.1), (0.14, 0.3), (0.36, 0.34), (0.26, 0.14)], leaf)
    pen.blob([(0.01, 0.05), (-0.16, 0.24), (-0.36, 0.26), (-0.24, 0.08)], leaf)
    for k in range(6):
        a = math.pi * (k / 3 + 1 / 6) + turn * 0.2
        shade = coat.base if k % 2 else mix(coat.base, coat.dark, 0.4)
        pen.oval(t + 0.185 * math.cos(a), 0.69 + 0.185 * math.sin(a), 0.15, 0.105, shade, turn=a)
        pen.oval(t + 0.2 * math.cos(a), 0.69 + 0.2 * math.sin(a), 0.08, 0.04, coat.light, turn=a)
    centre = (252, 206, 60) if coat.name not in ("yellow", "orange") else (134, 84, 44)
    pen.oval(t, 0.69, 0.11, 0.11, centre)
    pen.oval(t - 0.02, 0.71, 0.06, 0.06, mix(centre, WHITE, 0.35))


def mushroom(pen: Pen, coat: Coat, turn: float) -> None:
    stem = (246, 232, 208)
    pen.blob(
        [
            (-0.17, 0.0),
            (-0.19, 0.1),
            (-0.12, 0.3),
            (-0.12, 0.52),
            (0.12, 0.52),
            (0.12, 0.3),
            (0.19, 0.1),
            (0.17, 0.0),
        ],
        stem,
    )
    pen.blob(
        [
            (0.04, 0.01),
            (0.06, 0.3),
            (0.06, 0.5),
            (0.12, 0.5),
            (0.12, 0.3),
            (0.18, 0.1),
            (0.15, 0.01),
        ],
        mix(stem, (120, 90, 80), 0.25),
    )
    pen.oval(0, 0.46, 0.4, 0.085, mix(stem, (150, 110, 90), 0.45))
    cap = smooth(
        [
            (-0.48, 0.47),
            (-0.42, 0.72),
            (-0.2, 0.93),
            (0, 0.97),
            (0.2, 0.93),
            (0.42, 0.72),
            (0.48, 0.47),
            (0.25, 0.5),
            (0, 0.51),
            (-0.25, 0.5),
        ]
    )
    pen.poly(cap, coat.base)
    dots = WHITE if coat.name != "white" else (206, 150, 140)
    t = turn * 0.03
    for x, y, rx, ry in (
        (-0.06, 0.78, 0.095, 0.08),
        (-0.3, 0.63, 0.07, 0.07),
        (0.24, 0.75, 0.075, 0.07),
        (0.12, 0.59, 0.06, 0.045),
        (0.38, 0.57, 0.04, 0.05),
    ):
        pen.oval(x + t, y, rx, ry, dots)


def star(pen: Pen, coat: Coat, turn: float) -> None:
    def ring(outer: float, inner: float) -> list[tuple[float, float]]:
        return [
            (r * math.sin(k * math.pi / 5), 0.5 + r * math.cos(k * math.pi / 5))
            for k in range(10)
            for r in ((outer if k % 2 == 0 else inner),)
        ]

    pen.blob(ring(0.53, 0.27), coat.base)
    pen.blob(ring(0.36, 0.19), mix(coat.base, coat.light, 0.6))
    t = turn * 0.03
    ink = INK if coat.name != "black" else (250, 244, 230)
    for side in (-1, 1):
        pen.oval(t + side * 0.09, 0.54, 0.034, 0.046, ink)
        pen.oval(t + side * 0.17, 0.46, 0.036, 0.024, mix(coat.base, (240, 120, 130), 0.6))
    pen.stroke([(t - 0.06, 0.455), (t, 0.425), (t + 0.06, 0.455)], 0.024, ink)


def snowman(pen: Pen, coat: Coat, turn: float) -> None:
    scarf = (222, 52, 56) if coat.name not in ("red", "orange", "pink") else (48, 104, 206)
    ink = INK if not is_dark(coat.base) else (250, 244, 230)
    hat = (66, 58, 76) if coat.name not in ("black", "brown") else (170, 60, 60)
    for side in (-1, 1):
        pen.stroke([(side * 0.2, 0.42), (side * 0.42, 0.56)], 0.04, (112, 76, 52))
        pen.stroke([(side * 0.36, 0.52), (side * 0.46, 0.5)], 0.035, (112, 76, 52))
    pen.oval(0, 0.24, 0.32, 0.25, coat.base)
    pen.oval(0, 0.06, 0.22, 0.06, coat.dark)
    pen.oval(0, 0.25, 0.3, 0.22, coat.base)
    pen.oval(0, 0.62, 0.23, 0.21, coat.base)
    for y in (0.34, 0.22):
        pen.oval(0, y, 0.032, 0.032, ink)
    pen.stroke([(-0.19, 0.47), (0, 0.42), (0.19, 0.47)], 0.085, scarf)
    pen.stroke([(0.12, 0.44), (0.16, 0.26)], 0.085, mix(scarf, INK, 0.15))
    pen.poly([(-0.17, 0.77), (-0.15, 1.0), (0.15, 1.0), (0.17, 0.77)], hat)
    pen.poly([(-0.168, 0.79), (-0.163, 0.85), (0.163, 0.85), (0.168, 0.79)], scarf)
    pen.oval(0, 0.77, 0.26, 0.035, hat)
    t = turn * 0.03
    eyes(pen, t, 0.67, 0.09, 0.04, coat.base)
    pen.poly([(t - 0.02, 0.64), (t - 0.02, 0.57), (t + 0.2, 0.585)], (246, 132, 34))
    pen.stroke([(t - 0.08, 0.535), (t, 0.51), (t + 0.08, 0.535)], 0.026, ink)
