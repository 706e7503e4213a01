"""Draw smooth shapes in local coordinates; every shape is one filled polygon."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .palette import RGB

_ANGLES = np.linspace(0, 2 * np.pi, 36, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_T = np.linspace(0, 1, 8, endpoint=False)[:, None]
# Catmull-Rom weights of the four neighbouring points at the eight steps of one segment.
_CATMULL = 0.5 * np.concatenate(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2],
    axis=1,
)


def smooth(points, closed: bool = True) -> np.ndarray:
    """A curve (n, 2) through all the points."""
    p = np.asarray(points, float)
    if closed:
        quads = np.stack([np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)], axis=1)
        return np.einsum("tk,nkc->ntc", _CATMULL, quads).reshape(-1, 2)
    padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    quads = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], axis=1)
    curve = np.einsum("tk,nkc->ntc", _CATMULL, quads).reshape(-1, 2)
    return np.concatenate([curve, p[-1:]])


class Pen:
    """Draws on an image in coordinates with an origin, unit, flip, tilt and light.

    ``up``: the y axis points upwards (subjects stand on y = 0); for scenery it points downwards,
    from 0 to 1.
    """

    def __init__(
        self,
        image: Image.Image,
        origin: tuple[float, float] = (0.0, 0.0),
        unit: float | None = None,
        flip: bool = False,
        tilt: float = 0.0,
        up: bool = False,
        light: RGB = (1.0, 1.0, 1.0),
    ) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.unit = float(unit if unit is not None else image.width)
        self.light = light
        c, s = math.cos(tilt) * self.unit, math.sin(tilt) * self.unit
        matrix = np.array([[c, -s], [s, c]])
        if flip:
            matrix = matrix @ np.diag([-1.0, 1.0])
        self._matrix = (np.diag([1.0, -1.0 if up else 1.0]) @ matrix).T
        self._origin = np.asarray(origin, float)

    def tone(self, colour: RGB, lit: bool = False) -> tuple[int, int, int]:
        """The colour in this pen's light; ``lit``: the object emits light, so it stays the same."""
        light = (1.0, 1.0, 1.0) if lit else self.light
        return tuple(max(0, min(255, round(c * k))) for c, k in zip(colour, light, strict=True))

    def place(self, points) -> list[float]:
        return (np.asarray(points, float) @ self._matrix + self._origin).ravel().tolist()

    def poly(self, points, colour: RGB, lit: bool = False) -> None:
        self.draw.polygon(self.place(points), fill=self.tone(colour, lit))

    def blob(self, points, colour: RGB, lit: bool = False) -> None:
        self.poly(smooth(points), colour, lit)

    def oval(self, x, y, rx, ry, colour: RGB, turn: float = 0.0, lit: bool = False) -> None:
        ring = _CIRCLE * (rx, ry)
        if turn:
            c, s = math.cos(turn), math.sin(turn)
            ring = ring @ np.array([[c, s], [-s, c]])
        self.poly(ring + (x, y), colour, lit)

    def stroke(self, points, width: float, colour: RGB, end: float | None = None) -> None:
        """A smooth line of the given width (tapering to ``end``) with round ends."""
        curve = smooth(points, closed=False)
        end = width if end is None else end
        along = np.gradient(curve, axis=0)
        normal = np.stack([-along[:, 1], along[:, 0]], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        half = np.linspace(width, end, len(curve))[:, None] / 2
        self.poly(np.concatenate([curve + normal * half, (curve - normal * half)[::-1]]), colour)
        for (x, y), r in ((curve[0], width / 2), (curve[-1], end / 2)):
            self.oval(x, y, r, r, colour)

    def ring(self, x, y, r, width: float, colour: RGB) -> None:
        """A circle of outer radius ``r`` drawn as a line of the given width."""
        outer, inner = _CIRCLE * r + (x, y), _CIRCLE * (r - width) + (x, y)
        self.poly(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), colour)

    def shaded(self, points, top: RGB, bottom: RGB) -> None:
        """A polygon filled with a vertical gradient over its own height."""
        flat = self.place(points)
        xs, ys = flat[0::2], flat[1::2]
        x0, y0 = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
        x1 = min(self.image.width, math.ceil(max(xs)) + 1)
        y1 = min(self.image.height, math.ceil(max(ys)) + 1)
        if x1 <= x0 or y1 <= y0:
            return
        mask = Image.new("L", (x1 - x0, y1 - y0), 0)
        shifted = np.asarray(flat).reshape(-1, 2) - (x0, y0)
        ImageDraw.Draw(mask).polygon(shifted.ravel().tolist(), fill=255)
        ramp = np.linspace(self.tone(top), self.tone(bottom), y1 - y0).astype(np.uint8)
        column = Image.fromarray(np.ascontiguousarray(ramp[:, None, :]))
        self.image.paste(column.resize(mask.size, Image.Resampling.NEAREST), (x0, y0), mask)
