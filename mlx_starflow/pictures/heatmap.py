"""A heat map: numbers drawn over a picture, one colour per token, with a colour scale."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError

# From dark violet over red to light yellow. The lightness rises evenly, so it works in grey too.
_STOPS = np.array(
    [(22, 11, 57), (86, 16, 110), (147, 38, 103), (202, 66, 75), (240, 112, 32), (252, 176, 20),
     (250, 236, 130)], np.float32,
)  # fmt: skip
_OPACITY = 0.7
_DIM = (80, 100)  # darkest level and range of the grey picture under the colours
_SCALE_WIDTH, _BAR_WIDTH, _MARGIN = 96, 18, 12  # pixels
MINIMUM_SIDE = 384  # pixels; smaller pictures are enlarged so that the scale can be read


def colours(share: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] of any shape (...) -> colours (..., 3), float32 in [0, 255]."""
    place = np.clip(share, 0, 1) * (len(_STOPS) - 1)
    low = np.minimum(place.astype(int), len(_STOPS) - 2)
    part = (place - low)[..., None]
    return _STOPS[low] * (1 - part) + _STOPS[low + 1] * part


def heatmap(
    picture: Image.Image,
    values: np.ndarray,
    unit: str,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """One picture with three parts: the picture, the picture in grey with the values over it, and
    the colour scale.

    ``values`` (rows, columns): spread evenly over the picture. ``unit``: title of the scale.
    ``limits``: the values of the darkest and the lightest colour; None: the smallest and the
    largest value. Errors: UsageError.
    """
    if values.ndim != 2 or not np.isfinite(values).all():
        raise UsageError(
            f"The values of a map must be finite and of shape (rows, columns); found shape "
            f"{values.shape}."
        )
    low, high = limits if limits is not None else (float(values.min()), float(values.max()))
    if high <= low:
        high = low + 1e-6
    scale = max(1, math.ceil(MINIMUM_SIDE / min(picture.size)))
    size = (picture.width * scale, picture.height * scale)
    large = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
    painted = colours((values - low) / (high - low)).round().astype(np.uint8)
    cover = Image.fromarray(painted).resize(size, Image.Resampling.NEAREST)
    # Over a pale grey version, since the picture's colours would be confused with the scale's.
    grey = large.convert("L").point(lambda g: _DIM[0] + g * _DIM[1] // 255).convert("RGB")
    whole = Image.new("RGB", (2 * size[0] + _MARGIN + _SCALE_WIDTH, size[1]), "white")
    whole.paste(large, (0, 0))
    whole.paste(Image.blend(grey, cover, _OPACITY), (size[0] + _MARGIN, 0))
    _draw_scale(whole, 2 * size[0] + 2 * _MARGIN, low, high, unit)
    return whole


def _draw_scale(whole: Image.Image, x: int, low: float, high: float, unit: str) -> None:
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size=12)
    top, bottom = 40, whole.height - 16
    for y in range(top, bottom):
        share = 1 - (y - top) / (bottom - top - 1)
        laid = _OPACITY * colours(np.array(share)) + (1 - _OPACITY) * (_DIM[0] + _DIM[1] / 2)
        colour = tuple(int(c) for c in laid)
        pen.line([(x, y), (x + _BAR_WIDTH, y)], fill=colour)
    for i in range(5):
        place = bottom - 1 - i * (bottom - top - 1) / 4
        text = f"{low + i * (high - low) / 4:.2f}"
        pen.text((x + _BAR_WIDTH + 6, place), text, fill="black", font=font, anchor="lm")
    pen.text((x, 4), unit, fill="black", font=font)
