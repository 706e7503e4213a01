"""House, castle and lighthouse, about one unit high, on y = 0."""

from __future__ import annotations

from ..palette import INK, WHITE, Coat, mix
from ..pen import Pen
from .features import mirror


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


def castle(pen: Pen, coat: Coat, turn: float, lit: bool = False) -> None:
    roof = (204, 62, 62) if coat.name not in ("red", "orange", "pink", "brown") else (58, 84, 168)
    pane = (255, 226, 120) if lit else (70, 66, 92)
    side_tone = mix(coat.base, coat.dark, 0.7)
    pen.stroke([(0, 0.9), (0, 1.04)], 0.025, (90, 80, 84))
    pen.poly([(0.0, 1.05), (0.0, 0.96), (0.15, 1.0)], (252, 206, 60))
    pen.poly([(-0.15, 0.2), (-0.15, 0.7), (0.15, 0.7), (0.15, 0.2)], side_tone)
    pen.poly([(-0.2, 0.68), (0, 0.94), (0.2, 0.68)], roof)
    pen.poly([(-0.3, 0), (-0.3, 0.42), (0.3, 0.42), (0.3, 0)], coat.base)
    for x in (-0.2, -0.067, 0.067, 0.2):
        pen.poly(
            [(x - 0.04, 0.41), (x - 0.04, 0.49), (x + 0.04, 0.49), (x + 0.04, 0.41)], coat.base
        )
    pen.oval(0, 0.59, 0.045, 0.06, pane, lit=lit)
    for s in (-1, 1):
        pen.poly(
            [(s * 0.25, 0), (s * 0.26, 0.6), (s * 0.5, 0.6), (s * 0.51, 0)],
            mix(coat.base, coat.light, 0.45),
        )
        pen.poly([(s * 0.43, 0), (s * 0.43, 0.6), (s * 0.5, 0.6), (s * 0.51, 0)], side_tone)
        pen.poly([(s * 0.21, 0.58), (s * 0.38, 0.88), (s * 0.55, 0.58)], roof)
        pen.poly([(s * 0.38, 0.88), (s * 0.55, 0.58), (s * 0.43, 0.58)], mix(roof, INK, 0.3))
        pen.oval(s * 0.36, 0.46, 0.042, 0.065, pane, lit=lit)
        pen.oval(s * 0.36, 0.22, 0.042, 0.065, pane, lit=lit)
    pen.oval(0, 0.2, 0.13, 0.12, mix(coat.dark, INK, 0.4))
    pen.poly([(-0.13, 0), (-0.13, 0.2), (0.13, 0.2), (0.13, 0)], mix(coat.dark, INK, 0.4))
    pen.oval(0, 0.19, 0.1, 0.1, (120, 76, 50))
    pen.poly([(-0.1, 0), (-0.1, 0.19), (0.1, 0.19), (0.1, 0)], (120, 76, 50))


def lighthouse(pen: Pen, coat: Coat, turn: float, lit: bool = False) -> None:
    band = (250, 248, 244) if coat.name != "white" else (150, 170, 200)
    shade = mix(coat.base, coat.dark, 0.8)
    roof = mix(coat.dark, INK, 0.3)
    pen.blob(mirror([(-0.3, 0.0), (-0.3, 0.07), (-0.18, 0.12)]), (128, 122, 128))
    pen.blob(mirror([(-0.28, 0.03), (-0.27, 0.08), (-0.16, 0.12)]), (156, 150, 154))

    def half(y: float) -> float:
        return 0.2 - 0.1 * (y - 0.06) / 0.64

    steps = (0.06, 0.22, 0.38, 0.54, 0.7)
    for k in range(4):
        a, b = steps[k], steps[k + 1]
        pen.poly(
            [(-half(a), a), (-half(b), b), (half(b), b), (half(a), a)],
            band if k % 2 else coat.base,
        )
        pen.poly(
            [(half(a) * 0.4, a), (half(b) * 0.4, b), (half(b), b), (half(a), a)],
            mix(band, (120, 120, 150), 0.3) if k % 2 else shade,
        )
    pen.poly([(-0.05, 0.07), (-0.05, 0.18), (0.05, 0.18), (0.05, 0.07)], (96, 66, 52))
    pen.oval(0, 0.46, 0.032, 0.045, (86, 110, 150))
    pen.poly([(-0.17, 0.69), (-0.17, 0.745), (0.17, 0.745), (0.17, 0.69)], (74, 70, 84))
    pen.poly([(-0.09, 0.74), (-0.09, 0.88), (0.09, 0.88), (0.09, 0.74)], (255, 232, 120), lit=True)
    pen.oval(0, 0.81, 0.05, 0.05, (255, 250, 210), lit=True)
    for x in (-0.095, 0.095):
        pen.stroke([(x, 0.74), (x, 0.88)], 0.022, (74, 70, 84))
    pen.blob(mirror([(-0.13, 0.87), (-0.1, 0.95), (-0.02, 1.0)]), roof)
    pen.oval(0, 1.0, 0.03, 0.03, roof)
