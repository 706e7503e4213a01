"""The rectangle of ``edit --box``."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ..errors import UsageError


class Box(NamedTuple):
    """A rectangle in pixels; x and y are counted from the top left corner of the picture."""

    x: int
    y: int
    width: int
    height: int

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """A mask (height, width), True inside the box, for a picture of ``size`` (width, height).
        Errors: UsageError if the box is not inside the picture."""
        if self.x + self.width > size[0] or self.y + self.height > size[1]:
            raise UsageError(
                f"--box {','.join(map(str, self))} reaches beyond the picture, which is "
                f"{size[0]}x{size[1]} pixels."
            )
        inside = np.zeros(size[::-1], bool)
        inside[self.y : self.y + self.height, self.x : self.x + self.width] = True
        return inside


def read_box(text: str) -> Box:
    """Parse ``X,Y,WIDTH,HEIGHT``. Errors: UsageError."""
    if re.fullmatch(r"\d{1,6}(,\d{1,6}){3}", text.replace(" ", "")):
        box = Box(*map(int, text.split(",")))
        if box.width and box.height:
            return box
    raise UsageError(f"--box {text}: expected X,Y,WIDTH,HEIGHT in whole pixels, such as 0,0,64,32.")
