"""Plants, buildings, vehicles and the star, in a frame of height about one on y = 0."""

from __future__ import annotations

import math

from ..palette import INK, WHITE, Coat, mix
from ..pen import Pen, smooth


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


def house(pen: Pen, coat: Coat, turn: float, lit: bool = False) -> None:
    roof = (86, 82, 104) if coat.name in ("red", "orange", "purple") else (176, 72, 58)
    pane = (255, 226, 120) if lit else (176, 216, 240)
    side = mix(coat.base, coat.dark, 0.6)
    pen.poly([(0.2, 0.66), (0.2, 0.97), (0.32, 0.97), (0.32, 0.66)], mix(roof, INK, 0.3))
    pen.poly([(-0.42, 0), (-0.42, 0.52), (0.42, 0.52), (0.42, 0)], coat.base)
    pen.poly([(0.3, 0), (0.3, 0.52), (0.42, 0.52), (0.42, 0)], side)
    pen.poly([(-0.42, 0.44), (-0.42, 0.54), (0.42, 0.54), (0.42, 0.44)], side)
    pen.poly([(-0.53, 0.48), (-0.3, 0.9), (0.3, 0.9), (0.53, 0.48)], roof)
    pen.poly([(-0.53, 0.48), (-0.5, 0.535), (0.5, 0.535), (0.53, 0.48)], mix(roof, INK, 0.35))
    pen.poly([(-0.08, 0), (-0.08, 0.32), (0.1, 0.32), (0.1, 0)], (112, 70, 48))
    pen.oval(0.065, 0.16, 0.018, 0.018, (240, 206, 110))
    for x in (-0.26, 0.25):
        pen.poly(
            [(x - 0.095, 0.15), (x - 0.095, 0.37), (x + 0.095, 0.37), (x + 0.095, 0.15)], WHITE
        )
        pen.poly(
            [(x - 0.07, 0.175), (x - 0.07, 0.345), (x + 0.07, 0.345), (x + 0.07, 0.175)],
            pane,
            lit=lit,
        )


def boat(pen: Pen, coat: Coat, turn: float) -> None:
    pen.stroke([(0.0, 0.2), (0.0, 0.98)], 0.034, (112, 78, 52))
    b = 0.03 * turn
    pen.blob(
        [(0.04, 0.94), (0.2 + b, 0.7), (0.44 + b, 0.38), (0.22, 0.36), (0.04, 0.36), (0.04, 0.65)],
        WHITE,
    )
    pen.poly(
        [(-0.04, 0.86), (-0.36 + b, 0.38), (-0.04, 0.38)],
        coat.light if coat.name != "white" else (206, 216, 230),
    )
    pen.poly(
        [(0.0, 0.9), (0.0, 1.02), (-0.16, 0.96)],
        coat.base if coat.name != "white" else (214, 60, 60),
    )
    pen.blob(
        [
            (-0.56, 0.33),
            (-0.42, 0.06),
            (-0.2, 0.0),
            (0.22, 0.0),
            (0.42, 0.06),
            (0.58, 0.34),
            (0.2, 0.29),
            (-0.2, 0.29),
        ],
        coat.base,
    )
    pen.blob(
        [(-0.44, 0.1), (-0.2, 0.0), (0.22, 0.0), (0.44, 0.1), (0.2, 0.09), (-0.2, 0.09)], coat.dark
    )
    pen.stroke([(-0.55, 0.325), (-0.2, 0.28), (0.2, 0.28), (0.57, 0.335)], 0.035, coat.light)


def car(pen: Pen, coat: Coat, turn: float) -> None:
    glass = (186, 222, 240)
    pen.blob([(-0.44, 0.38), (-0.28, 0.68), (-0.06, 0.74), (0.16, 0.7), (0.36, 0.4)], coat.base)
    pen.poly([(-0.33, 0.42), (-0.23, 0.63), (-0.07, 0.66), (-0.07, 0.42)], glass)
    pen.poly([(-0.01, 0.42), (-0.01, 0.66), (0.13, 0.63), (0.27, 0.42)], glass)
    pen.blob(
        [
            (-0.66, 0.16),
            (-0.66, 0.38),
            (-0.45, 0.45),
            (0.0, 0.45),
            (0.4, 0.44),
            (0.62, 0.36),
            (0.68, 0.18),
            (0.4, 0.11),
            (-0.4, 0.11),
        ],
        coat.base,
    )
    pen.poly([(-0.64, 0.13), (-0.66, 0.22), (0.66, 0.22), (0.64, 0.13)], coat.dark)
    pen.oval(0.6, 0.32, 0.05, 0.05, (255, 244, 180))
    pen.oval(-0.63, 0.33, 0.032, 0.05, (236, 70, 60) if coat.name != "red" else (255, 190, 90))
    for x in (-0.37, 0.37):
        pen.oval(x, 0.14, 0.155, 0.155, (38, 38, 46))
        pen.oval(x, 0.14, 0.075, 0.075, (198, 202, 210))


def rocket(pen: Pen, coat: Coat, turn: float, flying: bool = False) -> None:
    fin = (214, 58, 52) if coat.name in (None, "white", "black", "blue", "green") else (72, 76, 110)
    if flying:
        pen.blob(
            [(-0.11, 0.14), (-0.1, -0.04), (0.0, -0.2), (0.1, -0.04), (0.11, 0.14)],
            (255, 150, 40),
            lit=True,
        )
        pen.blob(
            [(-0.06, 0.14), (-0.05, 0.0), (0.0, -0.09), (0.05, 0.0), (0.06, 0.14)],
            (255, 236, 130),
            lit=True,
        )
    for side in (-1, 1):
        pen.poly(
            [(side * 0.15, 0.42), (side * 0.34, 0.16), (side * 0.35, 0.0), (side * 0.15, 0.13)], fin
        )
    pen.blob(
        [
            (-0.13, 0.1),
            (-0.2, 0.3),
            (-0.2, 0.58),
            (-0.1, 0.86),
            (0, 1.0),
            (0.1, 0.86),
            (0.2, 0.58),
            (0.2, 0.3),
            (0.13, 0.1),
        ],
        coat.base,
    )
    pen.blob([(-0.13, 0.8), (0, 1.02), (0.13, 0.8), (0, 0.78)], fin)
    pen.blob(
        [
            (0.08, 0.1),
            (0.12, 0.4),
            (0.08, 0.78),
            (0.13, 0.78),
            (0.2, 0.58),
            (0.2, 0.3),
            (0.13, 0.1),
        ],
        coat.dark,
    )
    pen.oval(0, 0.58, 0.11, 0.11, mix(fin, INK, 0.2))
    pen.oval(0, 0.58, 0.077, 0.077, (170, 220, 246))
    pen.oval(-0.025, 0.605, 0.028, 0.028, (240, 250, 255))
    pen.poly([(-0.035, 0.32), (0.035, 0.32), (0.035, 0.04), (-0.035, 0.04)], mix(fin, INK, 0.25))


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
