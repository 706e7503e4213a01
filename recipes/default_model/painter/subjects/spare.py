"""Subjects that random scenes never show, so that a trained model can be taught them later. About
one unit high, on y = 0."""

from __future__ import annotations

import math

from ..palette import INK, WHITE, Coat, mix
from ..pen import Pen
from .features import eyes


def robot(pen: Pen, coat: Coat, turn: float) -> None:
    steel, t = mix(coat.dark, INK, 0.25), 0.03 * turn
    for side in (-1, 1):
        pen.stroke([(side * 0.16, 0.32), (side * 0.16, 0.08)], 0.1, steel)
        pen.oval(side * 0.18, 0.05, 0.13, 0.06, coat.dark)
        pen.stroke([(side * 0.26, 0.56), (side * 0.4, 0.46), (side * 0.38, 0.32)], 0.075, steel)
        pen.oval(side * 0.38, 0.29, 0.065, 0.065, coat.dark)
    pen.blob([(-0.28, 0.26), (-0.3, 0.6), (0.3, 0.6), (0.28, 0.26)], coat.base)
    pen.blob([(0.12, 0.27), (0.14, 0.59), (0.3, 0.58), (0.28, 0.27)], coat.dark)
    pen.oval(-0.06, 0.45, 0.13, 0.1, mix(coat.light, WHITE, 0.5))
    for x, tone in ((-0.12, (228, 70, 60)), (-0.05, (250, 206, 70)), (0.02, (70, 186, 96))):
        pen.oval(x, 0.45, 0.028, 0.028, tone)
    pen.stroke([(t, 0.62), (t, 0.7)], 0.14, steel)
    pen.stroke([(t, 0.94), (t, 1.06)], 0.03, steel)
    pen.oval(t, 1.08, 0.05, 0.05, (232, 76, 66))
    pen.blob([(-0.24 + t, 0.68), (-0.26 + t, 0.96), (0.26 + t, 0.96), (0.24 + t, 0.68)], coat.base)
    pen.oval(-0.27 + t, 0.82, 0.045, 0.08, steel)
    pen.oval(0.27 + t, 0.82, 0.045, 0.08, steel)
    pen.oval(t, 0.83, 0.19, 0.11, mix(coat.light, WHITE, 0.55))
    eyes(pen, t, 0.85, 0.08, 0.045, WHITE)
    pen.stroke([(-0.07 + t, 0.76), (0.07 + t, 0.76)], 0.022, INK)


def teapot(pen: Pen, coat: Coat, turn: float) -> None:
    t = 0.03 * turn
    pen.ring(-0.42, 0.46, 0.25, 0.085, coat.dark)
    spout = [(0.3, 0.22), (0.5, 0.3), (0.56, 0.52), (0.7, 0.7), (0.56, 0.72), (0.4, 0.56)]
    pen.blob(spout, coat.dark)
    pen.oval(0, 0.06, 0.26, 0.06, mix(coat.dark, INK, 0.2))
    pen.oval(0, 0.42, 0.47, 0.38, coat.base)
    pen.blob([(0.1, 0.08), (0.36, 0.2), (0.46, 0.42), (0.36, 0.66), (0.28, 0.4)], coat.dark)
    pen.oval(-0.2, 0.56, 0.12, 0.1, coat.light, turn=0.6)
    dot = mix(coat.light, WHITE, 0.6)
    for x, y in ((-0.24, 0.32), (-0.06, 0.42), (0.13, 0.34), (0.02, 0.2), (0.24, 0.52)):
        pen.oval(x, y, 0.05, 0.05, dot)
    pen.oval(t, 0.79, 0.27, 0.06, coat.dark)
    pen.blob([(-0.24 + t, 0.8), (-0.14 + t, 0.89), (0.14 + t, 0.89), (0.24 + t, 0.8)], coat.base)
    pen.oval(t, 0.94, 0.065, 0.065, mix(coat.dark, INK, 0.25))


def snail(pen: Pen, coat: Coat, turn: float) -> None:
    skin = (226, 196, 150) if coat.name != "brown" else (236, 220, 180)
    shade, t = mix(skin, (130, 90, 60), 0.35), 0.03 * turn
    foot = [(-0.55, 0.0), (-0.5, 0.09), (0.1, 0.13), (0.34, 0.2), (0.38, 0.56), (0.52, 0.62)]
    foot += [(0.63, 0.54), (0.62, 0.3), (0.5, 0.05), (0.4, 0.0)]
    pen.blob(foot, skin)
    pen.stroke([(-0.5, 0.025), (0.44, 0.03)], 0.05, shade)
    for x in (0.46, 0.58):
        pen.stroke([(x, 0.56), (x + 0.03 + t, 0.84)], 0.04, skin)
        pen.oval(x + 0.03 + t, 0.86, 0.045, 0.045, skin)
    eyes(pen, 0.55 + t, 0.87, 0.06, 0.035, skin)
    pen.stroke([(0.5, 0.36), (0.56, 0.33), (0.61, 0.37)], 0.022, mix(shade, INK, 0.5))
    pen.oval(-0.1, 0.46, 0.4, 0.4, coat.base)
    spiral = []
    for k in range(26):
        a, r = -0.4 + 0.55 * k, 0.36 * (1 - k / 28)
        spiral.append((-0.1 + r * math.cos(a), 0.46 + r * math.sin(a)))
    pen.stroke(spiral, 0.075, coat.dark, end=0.04)
    pen.oval(-0.24, 0.64, 0.09, 0.06, coat.light, turn=0.7)
