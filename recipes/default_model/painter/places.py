"""Places, each painted as a few large shapes that are recognizable at any time of day."""

from __future__ import annotations

import numpy as np

from .palette import RGB, mix
from .pen import Pen, smooth

HORIZON = {
    "snow": 0.56, "forest": 0.62, "desert": 0.56, "beach": 0.46, "meadow": 0.54,
    "mountains": 0.66, "city": 0.70, "sea": 0.44, "sky": 1.0, "night sky": 1.0,
}  # fmt: skip
Rng = np.random.Generator


def _hill(pen: Pen, rng: Rng, level: float, swing: float, top: RGB, bottom: RGB) -> None:
    """Rolling ground from about ``level`` down to the lower edge."""
    y = level + swing * (rng.random(5) - 0.5) * 2
    line = smooth(np.stack([(-0.1, 0.2, 0.5, 0.8, 1.1), y], 1), closed=False)
    pen.shaded([*line.tolist(), (1.1, 1.02), (-0.1, 1.02)], top, bottom)


def _sides(rng: Rng, low: float = 0.04, high: float = 0.2) -> tuple[float, float]:
    """Random x coordinates near the left and the right edge."""
    return low + (high - low) * rng.random(), 1 - low - (high - low) * rng.random()


def _fir(pen: Pen, x: float, base: float, h: float, green: RGB, snow: RGB | None) -> None:
    w = h * 0.5
    pen.poly([(x - h * 0.05, base), (x + h * 0.05, base), (x, base - h * 0.4)], (96, 66, 48))
    for k in range(3):
        bottom, top = base - h * (0.12 + 0.25 * k), base - h * (0.52 + 0.24 * k)
        half = w * (0.5 - 0.11 * k)
        pen.poly([(x - half, bottom), (x + half, bottom), (x, top)], green)
        pen.poly(
            [(x, top), (x + half, bottom), (x + half * 0.1, bottom)], mix(green, (10, 20, 40), 0.25)
        )
        if snow is not None:
            cut = 0.52
            pen.poly(
                [
                    (x, top),
                    (x + half * cut, top + (bottom - top) * cut),
                    (x, top + (bottom - top) * 0.38),
                    (x - half * cut, top + (bottom - top) * cut),
                ],
                snow,
            )


def _snow(pen: Pen, rng: Rng, time: str) -> None:
    _hill(pen, rng, 0.55, 0.04, (226, 236, 246), (206, 220, 238))
    left, right = _sides(rng)
    for x, base, h in ((left, 0.66, 0.42), (right, 0.64, 0.38), (left + 0.2, 0.6, 0.22)):
        _fir(pen, x, base, h * (0.9 + 0.2 * rng.random()), (62, 112, 96), (250, 252, 255))
    _hill(pen, rng, 0.66, 0.03, (252, 253, 255), (212, 226, 242))


def _forest(pen: Pen, rng: Rng, time: str) -> None:
    pen.shaded([(0, 0), (1, 0), (1, 0.7), (0, 0.7)], (120, 172, 108), (196, 216, 146))
    for x in np.linspace(0.02, 0.98, 7):
        x = x + 0.03 * rng.standard_normal()
        pen.shaded(
            [(x - 0.022, 0), (x + 0.022, 0), (x + 0.026, 0.68), (x - 0.026, 0.68)],
            (104, 138, 92),
            (140, 160, 108),
        )
    _hill(pen, rng, 0.64, 0.02, (104, 146, 70), (54, 92, 48))
    left, right = _sides(rng, 0.05, 0.13)
    for x, w in ((left, 0.05), (right, 0.055)):
        pen.shaded(
            [
                (x - w, 0),
                (x + w * 0.8, 0),
                (x + w, 0.74),
                (x + w * 1.6, 0.8),
                (x - w * 1.6, 0.8),
                (x - w, 0.72),
            ],
            (92, 64, 46),
            (112, 78, 54),
        )
        pen.poly(
            [(x + w * 0.2, 0), (x + w * 0.8, 0), (x + w, 0.75), (x + w * 0.3, 0.78)], (74, 50, 40)
        )
    for i, x in enumerate(np.linspace(-0.02, 1.02, 7)):
        y = 0.02 + 0.05 * rng.random() + (0.0 if 1 < i < 5 else 0.06)
        pen.oval(x, y, 0.14, 0.11, (46, 104, 54) if i % 2 else (60, 124, 60))


def _cactus(pen: Pen, x: float, base: float, h: float) -> None:
    green, lit = (70, 136, 76), (112, 172, 96)
    w = h * 0.2
    pen.stroke([(x, base), (x, base - h * 0.5), (x, base - h)], w, green)
    pen.stroke(
        [(x, base - h * 0.35), (x - h * 0.27, base - h * 0.4), (x - h * 0.28, base - h * 0.68)],
        w * 0.75,
        green,
    )
    pen.stroke(
        [(x, base - h * 0.5), (x + h * 0.26, base - h * 0.54), (x + h * 0.27, base - h * 0.84)],
        w * 0.75,
        green,
    )
    pen.stroke([(x - w * 0.2, base - h * 0.1), (x - w * 0.2, base - h * 0.95)], w * 0.2, lit)


def _desert(pen: Pen, rng: Rng, time: str) -> None:
    _hill(pen, rng, 0.54, 0.05, (236, 186, 116), (222, 164, 96))
    left, right = _sides(rng, 0.08, 0.16)
    tall = 0.36 + 0.06 * rng.random()
    _cactus(pen, left, 0.7, tall if rng.random() < 0.5 else tall * 0.7)
    _hill(pen, rng, 0.63, 0.05, (246, 206, 136), (226, 172, 102))
    _cactus(pen, right, 0.76, tall if rng.random() < 0.5 else tall * 0.7)
    crest = 0.7 + 0.05 * rng.random()
    pen.shaded(
        smooth(
            [(-0.1, crest), (0.3, crest + 0.1), (0.75, crest + 0.16), (1.1, crest + 0.12)], False
        ).tolist()
        + [(1.1, 1.02), (-0.1, 1.02)],
        (250, 214, 148),
        (232, 182, 112),
    )


def _beach(pen: Pen, rng: Rng, time: str) -> None:
    pen.shaded([(0, 0.46), (1, 0.46), (1, 0.72), (0, 0.72)], (36, 132, 186), (90, 200, 206))
    for y, x in ((0.51, 0.25), (0.55, 0.72), (0.585, 0.4)):
        pen.stroke([(x - 0.12, y), (x, y - 0.006), (x + 0.12, y)], 0.008, (206, 238, 240))
    edge = np.array([0.0, 0.02, -0.01, 0.02, 0.0]) + 0.63 + 0.015 * rng.standard_normal()
    for lift, top, bottom in (
        (-0.02, (240, 250, 250), (240, 250, 250)),
        (0.0, (246, 222, 164), (232, 198, 134)),
    ):
        line = smooth(np.stack([(-0.1, 0.2, 0.5, 0.8, 1.1), edge + lift], 1), closed=False)
        pen.shaded([*line.tolist(), (1.1, 1.02), (-0.1, 1.02)], top, bottom)
    side = 1 if rng.random() < 0.5 else -1
    x, lean = 0.5 + side * 0.42, -side * 0.05
    top = (x + lean, 0.22 + 0.05 * rng.random())
    pen.stroke([(x, 0.78), (x + lean * 0.3, 0.5), top], 0.05, (150, 108, 70), 0.034)
    for dx, dy in (
        (-0.2, 0.07),
        (-0.16, -0.05),
        (-0.02, -0.1),
        (0.13, -0.07),
        (0.2, 0.05),
        (0.1, 0.13),
        (-0.1, 0.14),
    ):
        tip = (top[0] + dx, top[1] + dy)
        mid = (top[0] + dx * 0.5, top[1] + dy * 0.5 - 0.035)
        pen.stroke([top, mid, tip], 0.042, (58, 142, 74), 0.006)
    x = 0.5 - side * 0.41
    pen.stroke([(x, 0.79), (x + side * 0.01, 0.5)], 0.013, (240, 236, 226))
    for k in range(4):
        a, b = (k - 2) * 0.06, (k - 1) * 0.06
        pen.poly(
            [(x + a, 0.57), (x + b, 0.57), (x + b * 0.7, 0.51), (x, 0.46), (x + a * 0.7, 0.51)],
            (228, 82, 78) if k % 2 else (250, 244, 232),
        )


def _meadow(pen: Pen, rng: Rng, time: str) -> None:
    _hill(pen, rng, 0.52, 0.05, (160, 206, 116), (130, 188, 92))
    _hill(pen, rng, 0.62, 0.05, (142, 204, 88), (72, 152, 58))
    colours = ((252, 246, 240), (250, 214, 66), (242, 128, 160))
    x, y = rng.random(22), rng.random(22)
    for i, (u, v) in enumerate(zip(x, np.sort(y), strict=True)):
        r = 0.008 + 0.013 * v
        pen.oval(u, 0.69 + 0.3 * v, r, r * 0.85, colours[i % 3])


def _mountains(pen: Pen, rng: Rng, time: str) -> None:
    shift = 0.08 * (rng.random(3) - 0.5)
    peaks = (
        (0.5 + shift[0], 0.1, 0.44),
        (0.12 + shift[1], 0.2, 0.36),
        (0.88 + shift[2], 0.17, 0.38),
    )
    for (x, top, w), rock in zip(
        peaks, ((132, 146, 176), (112, 128, 162), (118, 134, 168)), strict=True
    ):
        base = 0.72
        pen.shaded([(x, top), (x + w, base), (x - w, base)], rock, mix(rock, (200, 214, 226), 0.5))
        pen.poly(
            [
                (x, top),
                (x + w, base),
                (x + w * 0.2, base),
                (x + w * 0.06, top + 0.3),
                (x + w * 0.14, top + 0.2),
            ],
            mix(rock, (50, 60, 110), 0.3),
        )
        c, h = 0.36, base - top
        pen.poly(
            [
                (x, top),
                (x + w * c, top + h * c),
                (x + w * c * 0.55, top + h * c * 0.78),
                (x + w * 0.05, top + h * c * 1.1),
                (x - w * c * 0.5, top + h * c * 0.8),
                (x - w * c, top + h * c),
            ],
            (250, 252, 255),
        )
    _hill(pen, rng, 0.67, 0.025, (122, 160, 112), (104, 146, 96))
    _hill(pen, rng, 0.74, 0.02, (140, 176, 108), (88, 134, 82))


def _city(pen: Pen, rng: Rng, time: str) -> None:
    pen.shaded([(0, 0.5), (1, 0.5), (1, 0.8), (0, 0.8)], (150, 164, 190), (170, 178, 196))
    tones = ((158, 110, 104), (108, 124, 156), (190, 160, 126), (124, 146, 150), (142, 116, 148))
    glow = (255, 220, 120)
    edges, start = np.linspace(-0.02, 1.02, 7), int(rng.integers(5))
    for i in range(6):
        x0, x1 = edges[i], edges[i + 1] - 0.012
        middle = abs(i - 2.5) < 2
        top = (0.3 if middle else 0.12) + 0.14 * rng.random()
        wall = tones[(start + i) % 5]
        pen.shaded(
            [(x0, top), (x1, top), (x1, 0.78), (x0, 0.78)], wall, mix(wall, (230, 230, 236), 0.3)
        )
        pen.poly(
            [(x1 - 0.03, top), (x1, top), (x1, 0.78), (x1 - 0.03, 0.78)],
            mix(wall, (30, 30, 60), 0.3),
        )
        for row in range(5):
            y = top + 0.05 + row * 0.105
            if y > 0.7:
                break
            for x in (x0 + 0.03, x0 + 0.085):
                on = time == "night" and rng.random() < 0.75
                pen.poly(
                    [(x, y), (x + 0.036, y), (x + 0.036, y + 0.055), (x, y + 0.055)],
                    glow if on else (206, 226, 238),
                    lit=on,
                )
    pen.shaded([(0, 0.76), (1, 0.76), (1, 1), (0, 1)], (150, 150, 158), (104, 104, 114))
    pen.poly([(0, 0.755), (1, 0.755), (1, 0.79), (0, 0.79)], (204, 202, 200))
    for x in (0.02, 0.36, 0.70):
        pen.poly([(x, 0.945), (x + 0.2, 0.945), (x + 0.2, 0.965), (x, 0.965)], (236, 230, 200))


def _night_sky(pen: Pen, rng: Rng, time: str) -> None:
    """Nothing to paint: sky.py has painted everything."""


def _sky(pen: Pen, rng: Rng, time: str) -> None:
    """Clouds along the lower edge, as seen high above the ground."""
    colour, under = {
        "day": ((255, 255, 255), (212, 228, 242)),
        "dawn": ((255, 240, 232), (236, 200, 212)),
        "sunset": ((255, 206, 160), (224, 140, 128)),
        "night": ((84, 92, 136), (58, 66, 110)),
    }[time]
    flat = Pen(pen.image)
    for tone, level in ((under, 0.93), (colour, 0.975)):
        for x in np.linspace(0.0, 1.0, 6):
            r = 0.1 + 0.05 * rng.random()
            flat.oval(x, level + 0.02 * rng.random(), 0.15, r, tone)


def _sea(pen: Pen, rng: Rng, time: str) -> None:
    pen.shaded([(0, 0.44), (1, 0.44), (1, 1.01), (0, 1.01)], (58, 150, 198), (16, 78, 146))
    for row, y in enumerate((0.5, 0.57, 0.66, 0.77, 0.9)):
        reach = 0.05 + 0.03 * row
        start = rng.random()
        for k in range(3 if row < 3 else 2):
            x = (start + k / (3 if row < 3 else 2)) % 1.0
            pen.stroke(
                [(x - reach, y + 0.01), (x, y - 0.008), (x + reach, y + 0.01)],
                0.006 + 0.003 * row,
                (132, 204, 228),
                0.003,
            )


_PAINTERS = {
    "snow": _snow, "forest": _forest, "desert": _desert, "beach": _beach, "meadow": _meadow,
    "mountains": _mountains, "city": _city, "sea": _sea, "sky": _sky, "night sky": _night_sky,
}  # fmt: skip


def paint_place(pen: Pen, place: str, rng: np.random.Generator, time: str) -> None:
    """Paint the land or water of ``place`` over a sky, in picture coordinates (y down)."""
    _PAINTERS[place](pen, rng, time)
