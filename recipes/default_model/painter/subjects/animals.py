"""Sitting animals seen from the front, about one unit high, on y = 0."""

from __future__ import annotations

import math

from ..palette import INK, PINK, WHITE, Coat, mix
from ..pen import Pen
from .features import eyes, mirror, pale


def fox(pen: Pen, coat: Coat, turn: float) -> None:
    sock = mix(coat.dark, INK, 0.6)
    pen.blob(
        [
            (0.08, 0.02),
            (0.36, 0.0),
            (0.58, 0.14),
            (0.62, 0.38),
            (0.5, 0.62),
            (0.42, 0.66),
            (0.36, 0.5),
            (0.32, 0.34),
            (0.12, 0.24),
        ],
        coat.base,
    )
    pen.blob(
        [(0.62, 0.42), (0.55, 0.58), (0.42, 0.70), (0.36, 0.52), (0.45, 0.46), (0.52, 0.48)],
        pale(coat),
    )
    pen.blob(mirror([(-0.17, 0.0), (-0.25, 0.12), (-0.2, 0.34), (-0.1, 0.5)]), coat.base)
    pen.blob(mirror([(-0.1, 0.46), (-0.1, 0.3), (-0.03, 0.16)]), pale(coat))
    for x in (-0.09, 0.09):
        pen.oval(x, 0.05, 0.075, 0.055, sock)
    pen.oval(0, 0.46, 0.2, 0.06, coat.dark)
    for side in (-1, 1):
        pen.poly([(side * 0.29, 0.68), (side * 0.27, 1.03), (side * 0.03, 0.84)], coat.base)
        pen.poly([(side * 0.24, 0.74), (side * 0.245, 0.95), (side * 0.1, 0.83)], sock)
    t = turn * 0.05
    pen.blob(
        [
            (-0.33, 0.6),
            (-0.24, 0.78),
            (0, 0.86),
            (0.24, 0.78),
            (0.33, 0.6),
            (0.17, 0.5),
            (t, 0.40),
            (-0.17, 0.5),
        ],
        coat.base,
    )
    for side in (-1, 1):
        pen.blob(
            [
                (side * 0.335, 0.6),
                (side * 0.17, 0.5),
                (t, 0.405),
                (t + side * 0.035, 0.54),
                (t * 0.6 + side * 0.14, 0.6),
                (side * 0.22, 0.63),
            ],
            pale(coat),
        )
    pen.oval(t, 0.43, 0.048, 0.036, INK)
    eyes(pen, t * 0.8, 0.675, 0.13, 0.05, coat.base)


def cat(pen: Pen, coat: Coat, turn: float) -> None:
    pen.stroke(
        [(0.14, 0.06), (0.42, 0.06), (0.5, 0.26), (0.42, 0.42), (0.5, 0.56)], 0.085, coat.dark, 0.06
    )
    pen.blob(mirror([(-0.16, 0.0), (-0.24, 0.12), (-0.19, 0.34), (-0.1, 0.5)]), coat.base)
    pen.oval(0, 0.24, 0.1, 0.16, coat.light)
    for x in (-0.085, 0.085):
        pen.oval(x, 0.045, 0.075, 0.05, coat.light)
    pen.oval(0, 0.47, 0.18, 0.05, coat.dark)
    for side in (-1, 1):
        pen.poly([(side * 0.27, 0.7), (side * 0.25, 0.97), (side * 0.06, 0.86)], coat.base)
        pen.poly([(side * 0.225, 0.76), (side * 0.22, 0.91), (side * 0.11, 0.84)], PINK)
    pen.oval(0, 0.68, 0.29, 0.225, coat.base)
    for x in (-0.07, 0.0, 0.07):
        pen.stroke([(x, 0.9 - abs(x) * 0.4), (x * 0.8, 0.81)], 0.032, coat.dark, 0.016)
    t = turn * 0.05
    pen.oval(t - 0.055, 0.575, 0.085, 0.062, coat.light)
    pen.oval(t + 0.055, 0.575, 0.085, 0.062, coat.light)
    pen.poly([(t - 0.035, 0.635), (t + 0.035, 0.635), (t, 0.595)], (214, 96, 110))
    whisker = (245, 245, 245) if coat.name == "black" else mix(coat.dark, INK, 0.5)
    eyes(pen, t, 0.7, 0.13, 0.052, coat.base, iris=(224, 232, 104))
    for side in (-1, 1):
        for dy in (0.03, -0.02):
            pen.stroke([(t + side * 0.11, 0.58), (side * 0.37, 0.585 + dy * 1.6)], 0.013, whisker)


def dog(pen: Pen, coat: Coat, turn: float) -> None:
    pen.stroke([(0.16, 0.1), (0.34, 0.18), (0.42, 0.36)], 0.1, coat.base, 0.05)
    pen.blob(mirror([(-0.19, 0.0), (-0.27, 0.12), (-0.22, 0.34), (-0.14, 0.5)]), coat.base)
    pen.oval(0, 0.23, 0.12, 0.18, coat.light)
    for x in (-0.11, 0.11):
        pen.oval(x, 0.05, 0.095, 0.055, coat.light)
    pen.oval(
        0,
        0.46,
        0.17,
        0.05,
        (60, 120, 190) if coat.name in ("red", "orange", "purple") else (206, 54, 54),
    )
    t = turn * 0.05
    pen.blob(mirror([(-0.12, 0.46), (-0.24, 0.6), (-0.25, 0.78), (-0.14, 0.92)]), coat.base)
    ear = mix(coat.dark, INK, 0.35)
    for side in (-1, 1):
        pen.blob(
            [
                (side * 0.15, 0.92),
                (side * 0.3, 0.88),
                (side * 0.4, 0.66),
                (side * 0.36, 0.46),
                (side * 0.27, 0.48),
                (side * 0.23, 0.7),
            ],
            ear,
        )
    pen.oval(t, 0.58, 0.15, 0.12, coat.light if coat.name != "white" else (255, 255, 255))
    pen.oval(t, 0.5, 0.045, 0.065, (232, 104, 120))
    pen.oval(t, 0.555, 0.1, 0.03, coat.light if coat.name != "white" else (255, 255, 255))
    pen.oval(t, 0.635, 0.062, 0.045, INK)
    eyes(pen, t, 0.75, 0.11, 0.05, coat.base)


def rabbit(pen: Pen, coat: Coat, turn: float) -> None:
    for side in (-1, 1):
        pen.oval(side * 0.1, 0.82, 0.075, 0.22, coat.base, turn=-side * 0.16)
        pen.oval(side * 0.1, 0.81, 0.036, 0.165, PINK, turn=-side * 0.16)
    pen.oval(0.27, 0.13, 0.1, 0.095, pale(coat))
    pen.blob(mirror([(-0.16, 0.0), (-0.27, 0.1), (-0.24, 0.26), (-0.12, 0.4)]), coat.base)
    pen.oval(0, 0.19, 0.13, 0.13, coat.light)
    for x in (-0.13, 0.13):
        pen.oval(x, 0.04, 0.11, 0.05, coat.light)
    pen.oval(0, 0.36, 0.16, 0.045, coat.dark)
    pen.oval(0, 0.51, 0.235, 0.19, coat.base)
    t = turn * 0.045
    pen.oval(t - 0.045, 0.435, 0.07, 0.052, pale(coat))
    pen.oval(t + 0.045, 0.435, 0.07, 0.052, pale(coat))
    pen.oval(t, 0.475, 0.034, 0.026, (226, 110, 130))
    for side in (-1, 1):
        pen.oval(t + side * 0.155, 0.46, 0.045, 0.032, mix(coat.base, PINK, 0.6))
    eyes(pen, t, 0.55, 0.115, 0.048, coat.base)


def bear(pen: Pen, coat: Coat, turn: float) -> None:
    for side in (-1, 1):
        pen.oval(side * 0.25, 0.87, 0.12, 0.12, coat.base)
        pen.oval(side * 0.25, 0.86, 0.065, 0.065, coat.light)
        pen.oval(side * 0.25, 0.07, 0.13, 0.08, coat.dark)
    pen.oval(0, 0.27, 0.31, 0.27, coat.base)
    pen.oval(0, 0.25, 0.2, 0.19, coat.light)
    for side in (-1, 1):
        pen.stroke([(side * 0.25, 0.4), (side * 0.31, 0.28), (side * 0.25, 0.17)], 0.12, coat.dark)
    pen.oval(0, 0.47, 0.22, 0.05, coat.dark)
    pen.oval(0, 0.69, 0.325, 0.265, coat.base)
    t = turn * 0.05
    muzzle = mix(coat.light, WHITE, 0.45)
    pen.oval(t, 0.59, 0.155, 0.12, muzzle)
    pen.oval(t, 0.645, 0.07, 0.05, INK)
    pen.stroke([(t - 0.06, 0.555), (t, 0.53), (t + 0.06, 0.555)], 0.024, INK)
    eyes(pen, t, 0.755, 0.14, 0.05, coat.base)


def lion(pen: Pen, coat: Coat, turn: float) -> None:
    mane = mix(coat.base, (96, 44, 20), 0.55) if coat.name != "black" else (120, 108, 112)
    pen.stroke([(0.18, 0.08), (0.44, 0.1), (0.52, 0.34)], 0.07, coat.base, 0.05)
    pen.oval(0.52, 0.4, 0.085, 0.1, mane)
    pen.blob(mirror([(-0.18, 0.0), (-0.26, 0.12), (-0.2, 0.34), (-0.1, 0.5)]), coat.base)
    pen.oval(0, 0.2, 0.11, 0.15, coat.light)
    for x in (-0.1, 0.1):
        pen.oval(x, 0.045, 0.09, 0.055, coat.light)
    for k in range(12):
        a = k * math.pi / 6 + math.pi / 12
        pen.oval(0.3 * math.cos(a), 0.63 + 0.29 * math.sin(a), 0.12, 0.11, mane)
    pen.oval(0, 0.63, 0.32, 0.31, mane)
    for side in (-1, 1):
        pen.oval(side * 0.2, 0.83, 0.085, 0.085, coat.base)
        pen.oval(side * 0.2, 0.825, 0.045, 0.045, PINK)
    pen.oval(0, 0.63, 0.245, 0.225, coat.base)
    t = turn * 0.04
    for side in (-1, 1):
        pen.oval(t + side * 0.06, 0.535, 0.09, 0.07, mix(coat.light, WHITE, 0.5))
    pen.blob([(t - 0.06, 0.61), (t, 0.625), (t + 0.06, 0.61), (t, 0.555)], (120, 62, 52))
    eyes(pen, t, 0.685, 0.115, 0.048, coat.base)


def elephant(pen: Pen, coat: Coat, turn: float) -> None:
    inner = mix(coat.light, PINK, 0.45)
    for side in (-1, 1):
        pen.oval(side * 0.18, 0.14, 0.13, 0.15, coat.dark)
    pen.oval(0, 0.33, 0.32, 0.28, coat.base)
    for side in (-1, 1):
        pen.blob(
            [
                (side * 0.16, 0.0),
                (side * 0.34, 0.0),
                (side * 0.33, 0.3),
                (side * 0.12, 0.3),
            ],
            coat.base,
        )
        pen.oval(side * 0.25, 0.03, 0.075, 0.035, WHITE)
        pen.oval(side * 0.38, 0.7, 0.21, 0.25, coat.base, turn=side * 0.2)
        pen.oval(side * 0.38, 0.69, 0.145, 0.185, inner, turn=side * 0.2)
    pen.oval(0, 0.71, 0.28, 0.27, coat.base)
    t = turn * 0.05
    for side in (-1, 1):
        pen.blob(
            [(side * 0.1, 0.55), (side * 0.17, 0.55), (side * 0.19, 0.38), (side * 0.13, 0.42)],
            (255, 252, 240),
        )
    pen.stroke(
        [(t * 0.5, 0.64), (t, 0.44), (t + 0.02, 0.28), (t + 0.14, 0.2)], 0.17, coat.dark, 0.1
    )
    pen.stroke(
        [(t * 0.5, 0.66), (t, 0.45), (t + 0.02, 0.3), (t + 0.13, 0.22)], 0.13, coat.base, 0.07
    )
    eyes(pen, t * 0.6, 0.75, 0.14, 0.05, coat.base)
