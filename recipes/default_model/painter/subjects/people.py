"""A girl and a boy, about one unit high, on y = 0."""

from __future__ import annotations

from ..palette import RGB, WHITE, Coat, mix
from ..pen import Pen
from .features import cheeks, eyes, mirror

_SKINS: tuple[RGB, ...] = ((250, 212, 180), (226, 172, 128), (158, 106, 74))
_HAIRS: tuple[RGB, ...] = ((122, 72, 40), (72, 48, 40), (44, 36, 40))


def _tones(turn: float) -> tuple[RGB, RGB]:
    """Colours of skin and hair; the pose selects one of three pairs."""
    k = min(2, int((turn + 1) * 1.5))
    return _SKINS[k], _HAIRS[k]


def _face(pen: Pen, t: float, skin: RGB) -> None:
    eyes(pen, t, 0.7, 0.115, 0.046, (255, 255, 255))
    cheeks(pen, t, 0.615, 0.165, 0.045, mix(skin, (236, 110, 110), 0.5))
    pen.stroke(
        [(t - 0.055, 0.6), (t, 0.575), (t + 0.055, 0.6)], 0.026, mix(skin, (150, 40, 40), 0.7)
    )


def _stripe(coat: Coat) -> RGB:
    return WHITE if coat.name != "white" else (240, 150, 160)


def girl(pen: Pen, coat: Coat, turn: float) -> None:
    skin, hair = _tones(turn)
    bow = coat.base if coat.name not in ("black", "brown") else (236, 70, 80)
    for side in (-1, 1):
        pen.blob(
            [
                (side * 0.2, 0.78),
                (side * 0.36, 0.74),
                (side * 0.42, 0.54),
                (side * 0.34, 0.4),
                (side * 0.28, 0.56),
            ],
            hair,
        )
        pen.stroke([(side * 0.09, 0.22), (side * 0.09, 0.05)], 0.085, skin)
        pen.oval(side * 0.1, 0.035, 0.08, 0.042, (92, 60, 60))
        pen.stroke([(side * 0.12, 0.4), (side * 0.28, 0.26)], 0.085, skin)
    pen.poly([(-0.1, 0.48), (0.1, 0.48), (0.3, 0.14), (-0.3, 0.14)], coat.base)
    pen.poly([(-0.27, 0.19), (0.27, 0.19), (0.3, 0.14), (-0.3, 0.14)], coat.dark)
    pen.oval(0, 0.46, 0.1, 0.04, _stripe(coat))
    pen.oval(0, 0.74, 0.29, 0.26, hair)
    t = turn * 0.03
    pen.oval(t * 0.5, 0.67, 0.24, 0.21, skin)
    pen.blob(
        [(-0.27, 0.72), (-0.2, 0.92), (0.0, 0.99), (0.2, 0.92), (0.27, 0.72), (0.14, 0.82),
         (-0.02, 0.84), (-0.16, 0.8)],
        hair,
    )  # fmt: skip
    _face(pen, t, skin)
    for side in (-1, 1):
        pen.oval(side * 0.28, 0.8, 0.065, 0.06, bow)


def boy(pen: Pen, coat: Coat, turn: float) -> None:
    skin, hair = _tones(turn)
    trousers = (58, 70, 118) if coat.name not in ("blue", "purple", "black") else (196, 164, 112)
    if coat.name is None:
        trousers = (196, 164, 112)
    for side in (-1, 1):
        pen.oval(side * 0.11, 0.035, 0.1, 0.045, (70, 54, 58))
        pen.poly(
            [(side * 0.02, 0.28), (side * 0.17, 0.28), (side * 0.17, 0.06), (side * 0.05, 0.06)],
            trousers,
        )
        pen.stroke([(side * 0.17, 0.42), (side * 0.27, 0.26)], 0.095, coat.dark)
        pen.oval(side * 0.28, 0.23, 0.05, 0.05, skin)
    pen.poly([(-0.17, 0.22), (0.17, 0.22), (0.17, 0.26), (-0.17, 0.26)], trousers)
    pen.blob(mirror([(-0.16, 0.22), (-0.2, 0.38), (-0.12, 0.5)]), coat.base)
    pen.poly([(-0.185, 0.31), (0.185, 0.31), (0.19, 0.36), (-0.19, 0.36)], _stripe(coat))
    for side in (-1, 1):
        pen.oval(side * 0.25, 0.67, 0.05, 0.06, skin)
    t = turn * 0.03
    pen.oval(0, 0.69, 0.25, 0.23, skin)
    pen.blob(
        [(-0.27, 0.7), (-0.27, 0.86), (-0.14, 0.98), (0.04, 1.02), (0.22, 0.94), (0.27, 0.7),
         (0.18, 0.8), (0.02, 0.8), (-0.14, 0.84)],
        hair,
    )  # fmt: skip
    _face(pen, t, skin)
