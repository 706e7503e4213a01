"""Farm animals: bodies seen from the side, heads from the front."""

from __future__ import annotations

import math

from ..palette import INK, PINK, WHITE, Coat, mix
from ..pen import Pen
from .features import eyes, is_dark, mirror


def _legs(pen: Pen, near, far, top: float, width: float, coat: Coat, hoof) -> None:
    """Two darker legs behind and two in front, with hooves."""
    for places, tone in ((far, coat.dark), (near, coat.base)):
        for x in places:
            pen.poly(
                [
                    (x - width / 2, 0),
                    (x - width / 2, top),
                    (x + width / 2, top),
                    (x + width / 2, 0),
                ],
                tone,
            )
            pen.poly(
                [
                    (x - width * 0.56, 0),
                    (x - width * 0.52, 0.065),
                    (x + width * 0.52, 0.065),
                    (x + width * 0.56, 0),
                ],
                hoof,
            )


def horse(pen: Pen, coat: Coat, turn: float) -> None:
    mane = (228, 216, 196) if is_dark(coat.base) and coat.name is not None else (70, 46, 40)
    pen.blob([(0.4, 0.5), (0.5, 0.52), (0.58, 0.3), (0.54, 0.1), (0.46, 0.26)], mane)
    _legs(pen, (-0.12, 0.38), (-0.0, 0.26), 0.4, 0.1, coat, (60, 48, 48))
    pen.blob(
        [(-0.22, 0.42), (-0.1, 0.58), (0.14, 0.54), (0.36, 0.58), (0.46, 0.46), (0.38, 0.3),
         (0.12, 0.3), (-0.14, 0.28)],
        coat.base,
    )  # fmt: skip
    pen.blob([(-0.2, 0.36), (-0.38, 0.74), (-0.16, 0.92), (0.04, 0.56)], coat.base)
    pen.blob([(-0.2, 0.98), (-0.06, 0.86), (0.06, 0.58), (-0.04, 0.54), (-0.14, 0.7)], mane)
    x, t = -0.27, turn * 0.02
    for side in (-1, 1):
        pen.poly(
            [(x + side * 0.16, 0.88), (x + side * 0.14, 1.06), (x + side * 0.03, 0.93)], coat.base
        )
    pen.blob(
        mirror([(x - 0.085, 0.5), (x - 0.12, 0.62), (x - 0.17, 0.8), (x - 0.12, 0.94)], x),
        coat.base,
    )
    pen.blob(mirror([(x - 0.08, 0.96), (x - 0.07, 0.84), (x - 0.01, 0.78)], x), mane)
    pen.oval(x + t, 0.54, 0.105, 0.085, mix(coat.light, WHITE, 0.35))
    for side in (-1, 1):
        pen.oval(x + t + side * 0.042, 0.55, 0.02, 0.026, INK)
    eyes(pen, x + t, 0.76, 0.1, 0.043, coat.base)


def cow(pen: Pen, coat: Coat, turn: float) -> None:
    patch = (58, 50, 54) if not is_dark(coat.base) else WHITE
    pen.stroke([(0.44, 0.5), (0.54, 0.4), (0.53, 0.2)], 0.04, coat.dark)
    pen.oval(0.53, 0.18, 0.04, 0.07, patch)
    pen.oval(0.24, 0.21, 0.09, 0.07, PINK)
    _legs(pen, (-0.14, 0.38), (-0.02, 0.26), 0.34, 0.12, coat, (70, 58, 58))
    pen.blob(
        [(-0.26, 0.4), (-0.2, 0.6), (0.1, 0.6), (0.4, 0.6), (0.48, 0.44), (0.42, 0.24),
         (0.1, 0.22), (-0.2, 0.24)],
        coat.base,
    )  # fmt: skip
    pen.blob([(0.04, 0.58), (0.2, 0.59), (0.22, 0.44), (0.12, 0.36), (0.02, 0.46)], patch)
    pen.blob([(0.32, 0.4), (0.42, 0.52), (0.46, 0.42), (0.4, 0.28)], patch)
    x, t = -0.26, turn * 0.025
    for side in (-1, 1):
        pen.stroke(
            [(x + side * 0.12, 0.86), (x + side * 0.19, 0.92), (x + side * 0.18, 1.0)],
            0.055,
            (250, 236, 200),
            0.02,
        )
        pen.oval(x + side * 0.25, 0.8, 0.09, 0.055, coat.dark, turn=side * 0.3)
    pen.oval(x, 0.74, 0.2, 0.2, coat.base)
    pen.blob(mirror([(x - 0.19, 0.76), (x - 0.15, 0.56), (x - 0.06, 0.5)], x), coat.base)
    pen.blob([(x + 0.02, 0.93), (x + 0.18, 0.84), (x + 0.2, 0.7), (x + 0.06, 0.7)], patch)
    pen.oval(x + t, 0.56, 0.175, 0.115, (246, 176, 178))
    for side in (-1, 1):
        pen.oval(x + t + side * 0.07, 0.575, 0.026, 0.032, (150, 80, 90))
        pen.oval(x + t + side * 0.1, 0.755, 0.072, 0.08, (255, 252, 244))
    eyes(pen, x + t, 0.755, 0.1, 0.045, (255, 255, 255))


def pig(pen: Pen, coat: Coat, turn: float) -> None:
    pen.stroke([(0.3, 0.3), (0.42, 0.32), (0.44, 0.42), (0.37, 0.42), (0.46, 0.3)], 0.04, coat.dark)
    for side in (-1, 1):
        pen.blob(
            [(side * 0.1, 0.0), (side * 0.26, 0.0), (side * 0.26, 0.2), (side * 0.08, 0.2)],
            coat.dark,
        )
    pen.oval(0, 0.34, 0.36, 0.28, coat.base)
    pen.oval(0, 0.22, 0.22, 0.13, coat.light)
    for side in (-1, 1):
        pen.poly([(side * 0.1, 0.84), (side * 0.34, 1.02), (side * 0.35, 0.7)], coat.dark)
    pen.oval(0, 0.62, 0.35, 0.27, coat.base)
    t = turn * 0.05
    pen.oval(t, 0.55, 0.145, 0.11, coat.dark)
    pen.oval(t, 0.56, 0.125, 0.095, mix(coat.light, PINK, 0.4))
    for side in (-1, 1):
        pen.oval(t + side * 0.052, 0.56, 0.027, 0.042, mix(coat.dark, INK, 0.55))
    pen.stroke([(t - 0.07, 0.42), (t, 0.4), (t + 0.07, 0.42)], 0.024, mix(coat.dark, INK, 0.5))
    eyes(pen, t, 0.71, 0.16, 0.05, coat.base)


def sheep(pen: Pen, coat: Coat, turn: float) -> None:
    face = (226, 200, 172) if is_dark(coat.base) else (84, 70, 78)
    for x in (-0.16, -0.04, 0.18, 0.3):
        pen.stroke([(x, 0.02), (x, 0.25)], 0.085, mix(face, INK, 0.25))
    for reach, tone in ((1.0, coat.dark), (0.9, coat.base)):
        for k in range(11):
            a = k * 2 * math.pi / 11
            x, y = 0.07 + 0.31 * math.cos(a) * reach, 0.46 + 0.2 * math.sin(a) * reach
            pen.oval(x, y, 0.135 * reach, 0.125 * reach, tone)
    pen.oval(0.07, 0.46, 0.34, 0.23, coat.base)
    for x, y in ((0.14, 0.56), (0.3, 0.48), (0.16, 0.38)):
        pen.oval(x, y, 0.1, 0.07, coat.light)
    x, t = -0.18, turn * 0.03
    for side in (-1, 1):
        pen.oval(x + side * 0.21, 0.66, 0.095, 0.05, face, turn=-side * 0.5)
    pen.blob(
        mirror([(x - 0.09, 0.38), (x - 0.16, 0.54), (x - 0.17, 0.7), (x - 0.1, 0.82)], x), face
    )
    for dx, dy in ((-0.13, 0.82), (0.13, 0.82), (0.0, 0.87)):
        pen.oval(x + dx, dy, 0.1, 0.085, coat.base)
    pen.oval(x, 0.8, 0.14, 0.07, coat.base)
    pen.oval(x + t, 0.46, 0.05, 0.03, mix(face, PINK, 0.7))
    eyes(pen, x + t, 0.64, 0.085, 0.045, face)
