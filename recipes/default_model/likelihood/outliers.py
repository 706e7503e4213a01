"""Kinds of pictures that the recipe does not paint."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

_SUPERSAMPLE = 4
_PATCH = 32  # pixels per side of a shuffled patch

Colour = tuple[int, int, int]


def swapped_colours(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same painting with red, green and blue in another order."""
    order = ((1, 2, 0), (2, 0, 1), (2, 1, 0), (1, 0, 2), (0, 2, 1))[int(rng.integers(5))]
    return picture[:, :, list(order)]


def noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent, uniformly distributed pixel values."""
    return rng.integers(0, 256, picture.shape).astype(np.uint8)


def shuffled_patches(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The painting cut into square patches, which are put in random order."""
    n = picture.shape[0] // _PATCH
    parts = (
        picture.reshape(n, _PATCH, n, _PATCH, 3).swapaxes(1, 2).reshape(n * n, _PATCH, _PATCH, 3)
    )
    parts = parts[rng.permutation(n * n)].reshape(n, n, _PATCH, _PATCH, 3)
    return parts.swapaxes(1, 2).reshape(picture.shape)


def constant(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One colour everywhere."""
    return np.broadcast_to(rng.integers(0, 256, 3), picture.shape).astype(np.uint8)


def other_drawing(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A drawing of an object that the recipe does not paint, with sky and ground. Its colours are
    taken from the painting, so that it cannot be recognized by its colours."""
    side, half = picture.shape[0] * _SUPERSAMPLE, picture.shape[0] // 2
    sky, ground = _colour(picture[: half // 2], rng), _colour(picture[-half // 2 :], rng)
    ink, fill = _colour(picture[half:], rng), _colour(picture[half // 2 : -half // 2], rng)
    shade = np.linspace(1.15, 0.85, side)[:, None, None]
    canvas = np.clip(np.broadcast_to(sky, (side, side, 3)) * shade, 0, 255)
    canvas[int(side * rng.uniform(0.6, 0.8)) :] = ground
    image = Image.fromarray(canvas.astype(np.uint8))
    thing = _THINGS[int(rng.integers(len(_THINGS)))]
    x, y = side * rng.uniform(0.4, 0.6), side * rng.uniform(0.45, 0.6)
    thing(ImageDraw.Draw(image), x, y, side * rng.uniform(0.22, 0.34), ink, fill)
    return np.asarray(image.reduce(_SUPERSAMPLE))


def _colour(part: np.ndarray, rng: np.random.Generator) -> Colour:
    pixels = part.reshape(-1, 3)
    return tuple(int(c) for c in pixels[int(rng.integers(len(pixels)))])


def _circle(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, **style) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), **style)


def _face(pen, x, y, r, ink: Colour, fill: Colour) -> None:
    _circle(pen, x, y, r, fill=fill, outline=ink, width=6)
    for side in (-0.4, 0.4):
        _circle(pen, x + side * r, y - 0.25 * r, 0.12 * r, fill=ink)
    pen.arc((x - 0.5 * r, y - 0.3 * r, x + 0.5 * r, y + 0.6 * r), 20, 160, fill=ink, width=10)


def _umbrella(pen, x, y, r, ink: Colour, fill: Colour) -> None:
    pen.line((x, y - r, x, y + r), fill=ink, width=10)
    pen.arc((x - 0.3 * r, y + 0.8 * r, x, y + 1.1 * r), 0, 180, fill=ink, width=10)
    pen.pieslice((x - r, y - r, x + r, y + r), 180, 360, fill=fill, outline=ink, width=6)


def _bicycle(pen, x, y, r, ink: Colour, fill: Colour) -> None:
    for side in (-0.7, 0.7):
        _circle(pen, x + side * r, y + 0.4 * r, 0.5 * r, outline=ink, width=8)
    frame = [(x - 0.7 * r, y + 0.4 * r), (x - 0.2 * r, y - 0.4 * r), (x + 0.5 * r, y - 0.4 * r)]
    pen.line([*frame, (x, y + 0.4 * r), frame[0]], fill=fill, width=12)
    pen.line((x + 0.7 * r, y + 0.4 * r, x + 0.45 * r, y - 0.7 * r), fill=fill, width=12)


def _clock(pen, x, y, r, ink: Colour, fill: Colour) -> None:
    _circle(pen, x, y, r, fill=fill, outline=ink, width=14)
    for hour in range(12):
        a = hour * math.pi / 6
        ends = (x + 0.8 * r * math.cos(a), y + 0.8 * r * math.sin(a))
        pen.line((*ends, x + 0.92 * r * math.cos(a), y + 0.92 * r * math.sin(a)), ink, 8)
    pen.line((x, y, x + 0.5 * r, y - 0.2 * r), fill=ink, width=12)
    pen.line((x, y, x - 0.1 * r, y - 0.75 * r), fill=ink, width=8)


def _board(pen, x, y, r, ink: Colour, fill: Colour) -> None:
    cell = r / 3
    for i in range(6):
        for j in range(6):
            left, top = x - r + i * cell, y - r + j * cell
            pen.rectangle((left, top, left + cell, top + cell), fill=ink if (i + j) % 2 else fill)


def _heart(pen, x, y, r, ink: Colour, fill: Colour) -> None:
    for side in (-0.45, 0.45):
        _circle(pen, x + side * r, y - 0.3 * r, 0.52 * r, fill=fill)
    pen.polygon([(x - 0.93 * r, y - 0.1 * r), (x + 0.93 * r, y - 0.1 * r), (x, y + r)], fill=fill)


def _chart(pen, x, y, r, ink: Colour, fill: Colour) -> None:
    for i, height in enumerate((0.6, 1.2, 0.9, 1.7, 1.4)):
        left = x - r + i * 0.42 * r
        pen.rectangle((left, y + r - height * r, left + 0.3 * r, y + r), fill=fill, outline=ink)
    pen.line([(x - r, y - r), (x - r, y + r), (x + r, y + r)], fill=ink, width=8)


def _spiral(pen, x, y, r, ink: Colour, fill: Colour) -> None:
    turns = [i / 100 * 6 * math.pi for i in range(301)]
    points = [
        (x + r * a / (18 * math.pi) * math.cos(a), y + r * a / (18 * math.pi) * math.sin(a))
        for a in turns
    ]
    pen.line(points, fill=ink, width=14, joint="curve")


_THINGS = (_face, _umbrella, _bicycle, _clock, _board, _heart, _chart, _spiral)

OUTLIERS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "swapped colours": swapped_colours,
    "noise": noise,
    "shuffled patches": shuffled_patches,
    "out-of-vocabulary drawings": other_drawing,
    "constant": constant,
}
