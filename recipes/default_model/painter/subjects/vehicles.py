"""Vehicles, about one unit high, on y = 0."""

from __future__ import annotations

import numpy as np

from ..palette import INK, WHITE, Coat, mix
from ..pen import Pen, smooth


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


def train(pen: Pen, coat: Coat, turn: float) -> None:
    trim = (252, 204, 64) if coat.name not in ("yellow", "orange") else (200, 52, 48)
    ink = (56, 52, 62)
    for x, y, r in ((0.44, 1.0, 0.1), (0.28, 1.06, 0.13), (0.1, 1.03, 0.1)):
        pen.oval(x, y, r, r * 0.8, (236, 238, 244))
    pen.poly([(0.56, 0.14), (0.72, 0.14), (0.6, 0.32), (0.56, 0.32)], ink)
    pen.poly([(-0.62, 0.16), (-0.62, 0.28), (0.6, 0.28), (0.6, 0.16)], ink)
    pen.poly([(-0.58, 0.26), (-0.58, 0.8), (-0.14, 0.8), (-0.14, 0.26)], coat.base)
    pen.poly([(-0.66, 0.79), (-0.64, 0.89), (-0.08, 0.89), (-0.06, 0.79)], coat.dark)
    pen.poly([(-0.5, 0.52), (-0.5, 0.73), (-0.23, 0.73), (-0.23, 0.52)], WHITE)
    pen.poly([(-0.47, 0.55), (-0.47, 0.7), (-0.26, 0.7), (-0.26, 0.55)], (170, 214, 240))
    pen.poly([(-0.14, 0.27), (-0.14, 0.6), (0.52, 0.6), (0.52, 0.27)], coat.base)
    pen.oval(0.52, 0.435, 0.08, 0.165, coat.dark)
    pen.poly([(-0.14, 0.52), (-0.14, 0.58), (0.52, 0.58), (0.52, 0.52)], coat.light)
    for x in (0.06, 0.3):
        pen.poly([(x - 0.025, 0.27), (x - 0.025, 0.6), (x + 0.025, 0.6), (x + 0.025, 0.27)], trim)
    pen.poly([(0.34, 0.58), (0.31, 0.86), (0.5, 0.86), (0.47, 0.58)], ink)
    pen.poly([(0.29, 0.82), (0.29, 0.89), (0.52, 0.89), (0.52, 0.82)], trim)
    pen.oval(0.1, 0.62, 0.1, 0.09, trim)
    pen.oval(0.6, 0.46, 0.05, 0.05, (255, 246, 190))
    for x, r in ((-0.4, 0.18), (0.08, 0.14), (0.4, 0.14)):
        pen.oval(x, r, r, r, ink)
        pen.oval(x, r, r * 0.66, r * 0.66, trim)
        pen.oval(x, r, r * 0.28, r * 0.28, ink)


def bicycle(pen: Pen, coat: Coat, turn: float) -> None:
    tyre, steel = (44, 42, 50), (206, 210, 218)
    for x in (-0.4, 0.4):
        pen.ring(x, 0.26, 0.245, 0.075, tyre)
        pen.ring(x, 0.26, 0.175, 0.03, steel)
        pen.oval(x, 0.26, 0.045, 0.045, steel)
    crank, seat, head = (-0.04, 0.26), (-0.2, 0.64), (0.27, 0.66)
    for a, b in (
        ((-0.4, 0.26), crank),
        ((-0.4, 0.26), (-0.17, 0.58)),
        (crank, seat),
        (crank, head),
        ((-0.17, 0.58), head),
        ((0.25, 0.76), (0.4, 0.26)),
    ):
        pen.stroke([a, b], 0.07, coat.base)
    pen.stroke([(-0.16, 0.605), (0.26, 0.685)], 0.022, coat.light)
    pen.oval(*crank, 0.075, 0.075, tyre)
    pen.oval(*crank, 0.035, 0.035, steel)
    pen.blob([(-0.35, 0.71), (-0.16, 0.7), (-0.06, 0.66), (-0.2, 0.63), (-0.34, 0.64)], tyre)
    pen.stroke([(0.25, 0.74), (0.24, 0.84), (0.36, 0.88), (0.42, 0.8)], 0.055, tyre)


def balloon(pen: Pen, coat: Coat, turn: float) -> None:
    stripe = WHITE if coat.name not in ("white", "grey", "yellow") else (238, 84, 80)
    for x in (-0.12, 0.12):
        pen.stroke([(x * 1.5, 0.34), (x, 0.18)], 0.022, (110, 84, 62))
    pen.poly([(-0.12, 0.2), (0.12, 0.2), (0.09, 0.02), (-0.09, 0.02)], (168, 112, 62))
    pen.poly([(-0.14, 0.16), (-0.14, 0.21), (0.14, 0.21), (0.14, 0.16)], (126, 80, 48))
    half = [(0.0, 1.0), (0.17, 0.98), (0.34, 0.86), (0.39, 0.67), (0.32, 0.48), (0.18, 0.34)]

    def gore(share: float) -> np.ndarray:
        return smooth([*((share * x, y) for x, y in half), (0.0, 0.33)], closed=False)

    def between(left: float, right: float, tone) -> None:
        pen.poly(np.concatenate([gore(left), gore(right)[::-1]]), tone)

    t = turn * 0.08
    cuts = (-1.0, -0.64 + t, -0.22 + t, 0.22 + t, 0.64 + t, 1.0)
    for k in range(5):
        between(cuts[k], cuts[k + 1], stripe if k % 2 else coat.base)
    pen.poly([(-0.18, 0.37), (0.18, 0.37), (0.15, 0.31), (-0.15, 0.31)], coat.dark)
