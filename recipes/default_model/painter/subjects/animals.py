"""Sitting animals, a bird and a fish, in a frame of height about one standing on y = 0."""

from __future__ import annotations

from ..palette import INK, PINK, WHITE, Coat, mix
from ..pen import Pen


def _mirror(points) -> list[tuple[float, float]]:
    """The left half's points followed by their mirror image."""
    return [*points, *((-x, y) for x, y in reversed(points))]


def _eye(pen: Pen, x: float, y: float, r: float, iris=None) -> None:
    if iris is not None:
        pen.oval(x, y, r * 1.25, r * 1.3, iris)
        pen.oval(x, y, r * 0.6, r * 1.15, INK)
    else:
        pen.oval(x, y, r, r * 1.15, INK)
    pen.oval(x + r * 0.3, y + r * 0.4, r * 0.36, r * 0.36, (255, 255, 255))


def _pale(coat: Coat):
    """White markings that still show on a white coat."""
    return (255, 255, 255) if coat.name == "white" else WHITE


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
        _pale(coat),
    )
    pen.blob(_mirror([(-0.17, 0.0), (-0.25, 0.12), (-0.2, 0.34), (-0.1, 0.5)]), coat.base)
    pen.blob(_mirror([(-0.1, 0.46), (-0.1, 0.3), (-0.03, 0.16)]), _pale(coat))
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
            _pale(coat),
        )
    pen.oval(t, 0.43, 0.048, 0.036, INK)
    for side in (-1, 1):
        _eye(pen, t * 0.8 + side * 0.125, 0.66, 0.036)


def cat(pen: Pen, coat: Coat, turn: float) -> None:
    pen.stroke(
        [(0.14, 0.06), (0.42, 0.06), (0.5, 0.26), (0.42, 0.42), (0.5, 0.56)], 0.085, coat.dark, 0.06
    )
    pen.blob(_mirror([(-0.16, 0.0), (-0.24, 0.12), (-0.19, 0.34), (-0.1, 0.5)]), coat.base)
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
    for side in (-1, 1):
        _eye(pen, t + side * 0.125, 0.695, 0.046, (216, 224, 96))
        for dy in (0.03, -0.02):
            pen.stroke([(t + side * 0.11, 0.58), (side * 0.37, 0.585 + dy * 1.6)], 0.013, whisker)


def dog(pen: Pen, coat: Coat, turn: float) -> None:
    pen.stroke([(0.16, 0.1), (0.34, 0.18), (0.42, 0.36)], 0.1, coat.base, 0.05)
    pen.blob(_mirror([(-0.19, 0.0), (-0.27, 0.12), (-0.22, 0.34), (-0.14, 0.5)]), coat.base)
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
    pen.blob(_mirror([(-0.12, 0.46), (-0.24, 0.6), (-0.25, 0.78), (-0.14, 0.92)]), coat.base)
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
    for side in (-1, 1):
        _eye(pen, t + side * 0.105, 0.745, 0.04)


def rabbit(pen: Pen, coat: Coat, turn: float) -> None:
    for side in (-1, 1):
        pen.oval(side * 0.1, 0.82, 0.075, 0.22, coat.base, turn=-side * 0.16)
        pen.oval(side * 0.1, 0.81, 0.036, 0.165, PINK, turn=-side * 0.16)
    pen.oval(0.27, 0.13, 0.1, 0.095, _pale(coat))
    pen.blob(_mirror([(-0.16, 0.0), (-0.27, 0.1), (-0.24, 0.26), (-0.12, 0.4)]), coat.base)
    pen.oval(0, 0.19, 0.13, 0.13, coat.light)
    for x in (-0.13, 0.13):
        pen.oval(x, 0.04, 0.11, 0.05, coat.light)
    pen.oval(0, 0.36, 0.16, 0.045, coat.dark)
    pen.oval(0, 0.51, 0.235, 0.19, coat.base)
    t = turn * 0.045
    pen.oval(t - 0.045, 0.435, 0.07, 0.052, _pale(coat))
    pen.oval(t + 0.045, 0.435, 0.07, 0.052, _pale(coat))
    pen.oval(t, 0.475, 0.034, 0.026, (226, 110, 130))
    for side in (-1, 1):
        pen.oval(t + side * 0.155, 0.46, 0.045, 0.032, mix(coat.base, PINK, 0.6))
        _eye(pen, t + side * 0.105, 0.545, 0.04)


def bird(pen: Pen, coat: Coat, turn: float, flying: bool = False) -> None:
    leg = (232, 140, 40) if coat.name != "orange" else (150, 90, 40)
    if not flying:
        for x in (-0.04, 0.1):
            pen.stroke([(x, 0.25), (x, 0.02)], 0.036, leg)
            pen.stroke([(x - 0.04, 0.02), (x + 0.08, 0.02)], 0.034, leg)
    pen.poly([(-0.24, 0.5), (-0.66, 0.62), (-0.62, 0.44), (-0.54, 0.34), (-0.2, 0.34)], coat.dark)
    if flying:
        pen.blob(
            [(-0.02, 0.55), (-0.06, 0.84), (-0.3, 1.04), (-0.26, 0.78), (-0.24, 0.6)], coat.dark
        )
    pen.blob(
        [
            (-0.36, 0.44),
            (-0.2, 0.25),
            (0.06, 0.19),
            (0.3, 0.3),
            (0.38, 0.52),
            (0.2, 0.68),
            (-0.1, 0.6),
        ],
        coat.base,
    )
    pen.oval(0.24, 0.68, 0.2, 0.19, coat.base)
    pen.blob(
        [(-0.1, 0.26), (0.08, 0.2), (0.3, 0.32), (0.36, 0.48), (0.22, 0.46), (0.04, 0.34)],
        coat.light,
    )
    beak = (248, 176, 44) if coat.name not in ("yellow", "orange") else (206, 88, 36)
    pen.poly([(0.4, 0.745), (0.62, 0.665), (0.41, 0.605)], beak)
    pen.poly([(0.42, 0.66), (0.62, 0.665), (0.41, 0.605)], mix(beak, INK, 0.2))
    _eye(pen, 0.29 + 0.02 * turn, 0.72, 0.046)
    if flying:
        pen.blob(
            [(0.1, 0.56), (0.06, 0.9), (-0.12, 1.14), (-0.2, 0.86), (-0.2, 0.52), (-0.04, 0.44)],
            coat.dark,
        )
        pen.blob(
            [(0.06, 0.58), (0.02, 0.84), (-0.09, 0.98), (-0.13, 0.8), (-0.12, 0.56)], coat.base
        )
    else:
        pen.blob(
            [(0.14, 0.5), (-0.02, 0.58), (-0.24, 0.52), (-0.46, 0.38), (-0.2, 0.32), (0.04, 0.34)],
            coat.dark,
        )


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
    pen.oval(0.37, 0.53, 0.078, 0.082, (255, 255, 255))
    pen.oval(0.385, 0.53, 0.045, 0.052, INK)
    pen.stroke([(0.54, 0.40), (0.46, 0.37), (0.42, 0.39)], 0.024, mix(coat.dark, INK, 0.5))
