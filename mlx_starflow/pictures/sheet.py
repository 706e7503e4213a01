"""Contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image


def contact_sheet(pictures: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """All pictures on one sheet, row by row. ``columns``: pictures per row; None: about as many as
    there are rows."""
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width = max(p.width for p in pictures)
    height = max(p.height for p in pictures)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    return sheet
