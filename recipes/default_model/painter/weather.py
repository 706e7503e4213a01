"""Weather painted over a finished picture: rain, snowfall and fog."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw


@lru_cache(maxsize=64)
def _mask(kind: str, side: int, variant: int) -> np.ndarray:
    """The opacity (side, side, 1) of one of a few cached variants of the weather."""
    rng = np.random.default_rng([variant, 77])
    if kind == "fog":
        y = np.linspace(0, 1, side)[:, None]
        wave = 0.06 * np.sin(np.linspace(0, 6, side)[None, :] + variant)
        veil = 0.26 * np.exp(-(((y + wave - 0.55) / 0.28) ** 2)) + 0.12
        return veil.astype(np.float32)[:, :, None]
    big = side * 3
    image = Image.new("L", (big, big), 0)
    draw = ImageDraw.Draw(image)
    if kind == "rain":
        for x, y in rng.random((34, 2)) * big:
            draw.line((x, y, x - big * 0.022, y + big * 0.085), fill=150, width=max(2, big // 130))
    else:
        for x, y, r in rng.random((46, 3)):
            x, y, r = x * big, y * big, big * (0.007 + 0.008 * r)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=225)
    return (np.asarray(image.reduce(3), np.float32) / 255)[:, :, None]


def lay_weather(picture: np.ndarray, weather: str, time: str, seed: int) -> np.ndarray:
    """The picture (side, side, 3), float, under the weather; ``seed`` picks the veil."""
    if weather in ("clear", "cloudy"):
        return picture
    dark = time == "night"
    veil = {
        "rain": (150, 172, 205) if dark else (226, 236, 248),
        "snowfall": (236, 240, 250),
        "fog": (92, 100, 128) if dark else (224, 228, 232),
    }[weather]
    mask = _mask(weather, picture.shape[0], seed % 8)
    return picture + (np.asarray(veil, np.float32) - picture) * mask
