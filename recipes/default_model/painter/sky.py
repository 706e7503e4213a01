"""Skies: a gradient by time of day, sun or moon, stars and clouds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from .palette import RGB, mix
from .pen import Pen

_GRADIENTS: dict[str, tuple[RGB, RGB, RGB]] = {
    "day": ((84, 160, 226), (146, 202, 240), (214, 236, 246)),
    "dawn": ((132, 154, 214), (226, 186, 214), (255, 222, 190)),
    "sunset": ((98, 78, 148), (236, 124, 96), (255, 200, 106)),
    "night": ((14, 20, 52), (30, 42, 90), (62, 74, 128)),
    "deep": ((10, 12, 44), (34, 26, 84), (78, 50, 122)),
}
_OVERCAST: dict[str, RGB] = {
    "day": (176, 188, 200),
    "dawn": (192, 176, 190),
    "sunset": (178, 132, 126),
    "night": (40, 46, 68),
    "deep": (34, 32, 72),
}
_DULL = {"clear": 0.0, "cloudy": 0.35, "rain": 0.6, "snowfall": 0.5, "fog": 0.55}


@lru_cache(maxsize=64)
def _gradient(kind: str, weather: str, side: int, reach: float) -> Image.Image:
    stops = [mix(c, _OVERCAST[kind], _DULL[weather]) for c in _GRADIENTS[kind]]
    y = np.linspace(0, 1 / reach, side)
    ramp = np.stack([np.interp(y, (0, 0.5, 1), [s[i] for s in stops]) for i in range(3)], 1)
    column = Image.fromarray(np.ascontiguousarray(ramp[:, None, :].round().astype(np.uint8)))
    return column.resize((side, side), Image.Resampling.NEAREST)


def sky(side: int, time: str, weather: str, deep: bool, horizon: float) -> Image.Image:
    """The empty sky, side x side pixels, lightest at the horizon. ``deep``: the night sky."""
    return _gradient("deep" if deep else time, weather, side, 1.0 if deep else horizon).copy()


def stars(pen: Pen, rng: np.random.Generator, count: int, below: float) -> None:
    for x, y, r in rng.random((count, 3)):
        size = 0.004 + 0.007 * r
        pen.oval(x, y * below, size, size, (255, 250, 220), lit=True)


def sun_or_moon(pen: Pen, time: str, weather: str, x: float, deep: bool, horizon: float) -> None:
    """Paint the sun or the moon at ``x``. In rain, snowfall and fog only the night sky has it."""
    hidden = weather in ("rain", "snowfall", "fog")
    if deep or (time == "night" and not hidden):
        r, y = (0.105, 0.19) if deep else (0.07, 0.15)
        dark = pen.image.getpixel((0, int(y * pen.image.height)))
        pen.oval(x, y, r, r, (255, 244, 204), lit=True)
        pen.oval(x + r * 0.5, y - r * 0.2, r * 0.86, r * 0.86, dark, lit=True)
    elif not hidden:
        r, y, colour = {
            "day": (0.07, 0.15, (255, 236, 130)),
            "dawn": (0.08, horizon - 0.10, (255, 238, 200)),
            "sunset": (0.11, horizon - 0.06, (255, 226, 120)),
        }[time]
        pen.oval(x, y, r, r, colour, lit=True)


def cloud(pen: Pen, x: float, y: float, size: float, colour: RGB, under: RGB) -> None:
    for dx, dy, r in ((-0.6, 0.05, 0.32), (0.6, 0.08, 0.3), (0.0, 0.06, 0.45)):
        pen.oval(x + dx * size, y + (dy + 0.1) * size, r * size * 1.15, r * size * 0.8, under)
    for dx, dy, r in ((-0.6, 0.0, 0.3), (0.6, 0.02, 0.27), (-0.18, -0.2, 0.4), (0.25, -0.12, 0.36)):
        pen.oval(x + dx * size, y + dy * size, r * size * 1.1, r * size * 0.85, colour)


def clouds(pen: Pen, rng: np.random.Generator, weather: str, time: str, deep: bool) -> None:
    """Paint clouds: at most two in clear weather, a covered sky otherwise."""
    colour, under = {
        "day": ((252, 253, 255), (214, 226, 238)),
        "dawn": ((255, 234, 226), (228, 190, 206)),
        "sunset": ((255, 186, 140), (204, 118, 122)),
        "night": ((72, 80, 122), (48, 56, 98)),
    }["night" if deep else time]
    if weather != "clear":
        grey = (66, 72, 100) if deep or time == "night" else (198, 204, 214)
        colour, under = mix(colour, grey, 0.6), mix(under, mix(grey, (0, 0, 0), 0.2), 0.6)
    many = weather in ("cloudy", "rain", "snowfall")
    count = 5 if many else int(rng.integers(0, 3)) if weather == "clear" else 0
    flat = Pen(pen.image)
    for i in range(count):
        x = (i + 0.2 + 0.6 * rng.random()) / count
        size = (0.17 if many else 0.11) + 0.05 * rng.random()
        cloud(flat, x, 0.07 + 0.16 * rng.random(), size, colour, under)
