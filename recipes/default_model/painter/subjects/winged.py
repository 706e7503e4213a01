"""Animals that fly or swim: bird, butterfly, penguin, duck and fish."""

from __future__ import annotations

from ..palette import INK, WHITE, Coat, mix
from ..pen import Pen
from .features import eyes, mirror


def bird(pen: Pen, coat: Coat, turn: float, flying: bool = False) -> None:
    leg = (232, 140, 40) if coat.name != "orange" else (150, 90, 40)
    if flying:
        for side in (-1, 1):
            pen.blob(
                [
                    (side * 0.16, 0.5),
                    (side * 0.3, 0.78),
                    (side * 0.54, 0.96),
                    (side * 0.56, 0.72),
                    (side * 0.46, 0.5),
                    (side * 0.24, 0.34),
                ],
                coat.dark,
            )
            pen.blob(
                [(side * 0.2, 0.52), (side * 0.34, 0.74), (side * 0.48, 0.84), (side * 0.4, 0.54)],
                coat.base,
            )
    else:
        for x in (-0.1, 0.1):
            pen.stroke([(x, 0.2), (x, 0.025)], 0.045, leg)
            pen.stroke([(x - 0.07, 0.025), (x + 0.07, 0.025)], 0.05, leg)
    pen.blob([(-0.1, 0.22), (0.0, 0.26), (0.1, 0.22), (0.12, 0.04), (-0.12, 0.04)], coat.dark)
    for x, y in ((-0.07, 0.98), (0.0, 1.02), (0.07, 0.98)):
        pen.stroke([(x * 0.5, 0.8), (x, y)], 0.07, coat.dark, 0.03)
    pen.blob(
        mirror([(-0.12, 0.12), (-0.29, 0.26), (-0.31, 0.52), (-0.25, 0.78), (-0.1, 0.88)]),
        coat.base,
    )
    t = turn * 0.04
    pen.oval(t * 0.5, 0.32, 0.2, 0.19, coat.light)
    if not flying:
        for side in (-1, 1):
            pen.blob(
                [(side * 0.26, 0.56), (side * 0.39, 0.4), (side * 0.36, 0.16), (side * 0.24, 0.26)],
                coat.dark,
            )
    beak = (248, 176, 44) if coat.name not in ("yellow", "orange") else (206, 88, 36)
    pen.poly([(t - 0.085, 0.6), (t, 0.645), (t + 0.085, 0.6), (t, 0.48)], beak)
    pen.poly([(t - 0.085, 0.6), (t + 0.085, 0.6), (t, 0.48)], mix(beak, INK, 0.18))
    eyes(pen, t, 0.69, 0.14, 0.055, coat.base)


def butterfly(pen: Pen, coat: Coat, turn: float) -> None:
    spot = WHITE if coat.name != "white" else (150, 186, 226)
    edge = mix(coat.dark, INK, 0.55)
    for side in (-1, 1):
        upper = [
            (side * 0.03, 0.5),
            (side * 0.16, 0.84),
            (side * 0.42, 0.98),
            (side * 0.56, 0.82),
            (side * 0.46, 0.54),
            (side * 0.2, 0.46),
        ]
        lower = [
            (side * 0.03, 0.5),
            (side * 0.3, 0.48),
            (side * 0.44, 0.32),
            (side * 0.36, 0.08),
            (side * 0.2, 0.06),
            (side * 0.08, 0.28),
        ]
        for wing, x, y in ((lower, 0.24, 0.28), (upper, 0.32, 0.7)):
            pen.blob(wing, edge)
            inner = [(side * x + (u - side * x) * 0.84, y + (v - y) * 0.84) for u, v in wing]
            pen.blob(inner, coat.base if wing is upper else mix(coat.base, coat.light, 0.6))
        pen.oval(side * 0.38, 0.78, 0.085, 0.085, spot)
        pen.oval(side * 0.25, 0.62, 0.055, 0.055, spot)
        pen.oval(side * 0.26, 0.22, 0.06, 0.06, spot)
        pen.stroke([(side * 0.03, 0.76), (side * 0.08, 0.92), (side * 0.16, 0.98)], 0.026, INK)
        pen.oval(side * 0.16, 0.98, 0.032, 0.032, INK)
    pen.blob(mirror([(-0.02, 0.08), (-0.06, 0.24), (-0.065, 0.5), (-0.05, 0.64)]), (74, 56, 62))
    pen.oval(0, 0.7, 0.155, 0.135, (74, 56, 62))
    eyes(pen, turn * 0.012, 0.71, 0.078, 0.038, (74, 56, 62))


def penguin(pen: Pen, coat: Coat, turn: float) -> None:
    feet = (246, 160, 40) if coat.name not in ("orange", "yellow") else (206, 92, 40)
    for side in (-1, 1):
        pen.oval(side * 0.13, 0.045, 0.13, 0.05, feet)
        pen.blob(
            [(side * 0.22, 0.6), (side * 0.38, 0.42), (side * 0.4, 0.2), (side * 0.26, 0.3)],
            coat.dark,
        )
    pen.blob(
        mirror([(-0.14, 0.04), (-0.29, 0.2), (-0.29, 0.46), (-0.25, 0.78), (-0.13, 0.96)]),
        coat.base,
    )
    t, white = turn * 0.035, (252, 252, 250)
    if coat.name == "white":
        white = (206, 220, 236)
    pen.blob(mirror([(-0.1, 0.06), (-0.21, 0.2), (-0.2, 0.42), (-0.12, 0.56)]), white)
    for side in (-1, 1):
        pen.oval(t + side * 0.1, 0.73, 0.125, 0.14, white)
    pen.oval(t, 0.62, 0.13, 0.1, white)
    pen.poly([(t - 0.085, 0.66), (t, 0.7), (t + 0.085, 0.66), (t, 0.56)], feet)
    pen.poly([(t - 0.085, 0.66), (t + 0.085, 0.66), (t, 0.56)], mix(feet, INK, 0.2))
    eyes(pen, t, 0.755, 0.105, 0.052, white)


def duck(pen: Pen, coat: Coat, turn: float) -> None:
    bill = (244, 140, 36) if coat.name not in ("orange",) else (252, 214, 60)
    for x in (-0.04, 0.14):
        pen.stroke([(x, 0.14), (x, 0.03)], 0.05, bill)
        pen.oval(x - 0.03, 0.025, 0.085, 0.03, bill)
    pen.blob(
        [(-0.4, 0.34), (-0.3, 0.14), (0.06, 0.08), (0.36, 0.18), (0.56, 0.52), (0.36, 0.44),
         (0.04, 0.5), (-0.26, 0.52)],
        coat.base,
    )  # fmt: skip
    pen.blob([(-0.06, 0.4), (0.16, 0.42), (0.42, 0.38), (0.24, 0.2), (0.0, 0.22)], coat.dark)
    x, t = -0.2, turn * 0.03
    pen.oval(x, 0.48, 0.16, 0.14, coat.base)
    pen.oval(x, 0.72, 0.26, 0.24, coat.base)
    pen.oval(x + t - 0.02, 0.615, 0.16, 0.06, bill)
    pen.oval(x + t - 0.02, 0.585, 0.125, 0.04, mix(bill, INK, 0.22))
    pen.oval(x + t - 0.02, 0.635, 0.15, 0.04, bill)
    eyes(pen, x + t, 0.77, 0.12, 0.052, coat.base)


def fish(pen: Pen, coat: Coat, turn: float) -> None:
    pen.blob(
        [(-0.3, 0.45), (-0.5, 0.66), (-0.66, 0.72), (-0.58, 0.45), (-0.66, 0.16), (-0.5, 0.24)],
        coat.dark,
    )
    pen.blob([(-0.2, 0.62), (-0.06, 0.88), (0.16, 0.86), (0.22, 0.66)], coat.dark)
    pen.blob([(-0.06, 0.26), (-0.16, 0.06), (0.06, 0.1), (0.14, 0.24)], coat.dark)
    pen.blob(
        [
            (-0.4, 0.45),
            (-0.14, 0.66),
            (0.16, 0.73),
            (0.44, 0.62),
            (0.57, 0.46),
            (0.44, 0.28),
            (0.16, 0.17),
            (-0.14, 0.25),
        ],
        coat.base,
    )
    pen.blob(
        [(-0.3, 0.42), (0.1, 0.34), (0.5, 0.38), (0.4, 0.26), (0.16, 0.18), (-0.12, 0.26)],
        coat.light,
    )
    band = WHITE if coat.name != "white" else (150, 176, 206)
    pen.blob(
        [(0.1, 0.72), (0.2, 0.72), (0.24, 0.45), (0.18, 0.19), (0.09, 0.19), (0.14, 0.45)], band
    )
    pen.blob([(0.0, 0.46), (-0.2, 0.5), (-0.22, 0.36), (-0.04, 0.36)], coat.dark)
    for x, y, r in ((0.47, 0.57, 0.062), (0.32, 0.53, 0.084)):
        pen.oval(x, y, r, r * 1.05, (255, 255, 255))
        pen.oval(x + 0.015, y, r * 0.6, r * 0.66, INK)
        pen.oval(x + 0.03, y + 0.022, r * 0.24, r * 0.24, (255, 255, 255))
    pen.stroke([(0.53, 0.38), (0.45, 0.345), (0.39, 0.365)], 0.026, mix(coat.dark, INK, 0.5))
