"""The loss curve, as a table (CSV) and as a plot (PNG).

The plot is drawn with Pillow, which is a dependency already, so no plotting library is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ..pictures.arrays import write_whole
from ..pictures.metadata import save_picture

Row = tuple[int, float | None, float | None, float | None]
SIZE, LEFT, TOP, BOTTOM, RIGHT = (800, 480), 76, 34, 44, 20
TRAIN, VALID, BAND = (120, 150, 190), (190, 60, 40), (240, 214, 206)


def write_curve(directory: Path, rows: Sequence[Row]) -> None:
    """Write loss.csv and loss.png. Errors: ImageError if they cannot be written."""
    lines = ["step,train_bits_per_dim,valid_bits_per_dim,standard_error"]
    lines += [",".join("" if v is None else f"{v:.6g}" for v in row) for row in rows]
    text = "\n".join(lines) + "\n"
    write_whole(directory / "loss.csv", lambda file: file.write(text.encode()))
    save_picture(draw_curve(rows), directory / "loss.png", None, overwrite=True)


def draw_curve(rows: Sequence[Row]) -> Image.Image:
    """Plot bits per dimension against steps: training in grey-blue, held-out pictures in red with a
    band of one standard error."""
    image = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(image)
    train = [(s, t) for s, t, _, _ in rows if t is not None and math.isfinite(t)]
    valid = [(s, v, e or 0.0) for s, _, v, e in rows if v is not None and math.isfinite(v)]
    values = [v for _, v in train] + [v + d for _, v, e in valid for d in (e, -e)]
    if not values:
        return image
    steps = [row[0] for row in rows]
    across = _scale(min(steps), max(steps), LEFT, SIZE[0] - RIGHT)
    up = _scale(min(values), max(values), SIZE[1] - BOTTOM, TOP)
    for value in _ticks(min(values), max(values)):
        pen.line([(LEFT, up(value)), (SIZE[0] - RIGHT, up(value))], fill=(228, 228, 228))
        pen.text((8, up(value) - 6), f"{value:.4g}", fill="black")
    for value in _ticks(min(steps), max(steps)):
        pen.text((across(value) - 10, SIZE[1] - BOTTOM + 8), f"{value:g}", fill="black")
    if len(valid) > 1:
        above = [(across(s), up(v + e)) for s, v, e in valid]
        below = [(across(s), up(v - e)) for s, v, e in valid]
        pen.polygon(above + below[::-1], fill=BAND)
    if len(train) > 1:
        pen.line([(across(s), up(v)) for s, v in train], fill=TRAIN, width=2)
    if len(valid) > 1:
        pen.line([(across(s), up(v)) for s, v, _ in valid], fill=VALID, width=3)
    for s, v, _ in valid:
        pen.ellipse([across(s) - 3, up(v) - 3, across(s) + 3, up(v) + 3], fill=VALID)
    pen.text((LEFT, 10), "bits per dimension", fill="black")
    pen.text((SIZE[0] - 230, 10), "training", fill=TRAIN)
    pen.text((SIZE[0] - 150, 10), "held out (± s.e.)", fill=VALID)
    pen.text((SIZE[0] // 2, SIZE[1] - 20), "steps", fill="black")
    return image


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: begin + (value - low) / span * (end - begin)


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most about ``count`` round values between ``low`` and ``high``, for axis labels."""
    span = (high - low) or abs(low) or 1.0
    unit = 10 ** math.floor(math.log10(span / count))
    step = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= count)
    first = math.ceil(low / step) * step
    return [first + i * step for i in range(int((high - first) / step + 1e-9) + 1)]
