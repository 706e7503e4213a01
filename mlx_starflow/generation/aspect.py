"""Picture sizes of models that were trained on several aspect ratios."""

from __future__ import annotations

import math

from ..config import ASPECT_RATIOS
from ..errors import UsageError


def image_size(aspect: str, size: int, multiple: int) -> tuple[int, int]:
    """(width, height) in pixels for an aspect ratio "w:h", with about size * size pixels in total.

    ``size``: side of the model's square pictures. ``multiple``: pixels per token along one side
    (VAE factor times patch size). Errors: UsageError for an unknown ratio.
    """
    if aspect not in ASPECT_RATIOS:
        raise UsageError(
            f"The aspect ratio is {aspect!r}; expected one of {', '.join(ASPECT_RATIOS)}."
        )
    w, h = (int(number) for number in aspect.split(":"))
    width = round(math.sqrt(size**2 * w / h) / multiple) * multiple
    height = round(math.sqrt(size**2 * h / w) / multiple) * multiple
    return width, height
