"""A rectangle of a picture, as ``edit --box`` takes it."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ..errors import UsageError


class Box(NamedTuple):
    """In pixels, from the top left corner."""

    x: int
    y: int
    width: int
    height: int

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """Bools (height, width) of a picture of ``size`` (width, height), True inside the box.
        Errors: UsageError where the box is not inside the picture."""
        if self.x + self.width > size[0] or self.y + self.height > size[1]:
            raise UsageError(
                f"--box {','.join(map(str, self))} reaches beyond the picture, which is "
                f"{size[0]}x{size[1]} pixels."
            )
        inside = np.zeros(size[::-1], bool)
        inside[self.y : self.y + self.height, self.x : self.x + self.width] = True
        return inside


def read_box(text: str) -> Box:
    """``X,Y,WIDTH,HEIGHT``. Errors: UsageError."""
    if re.fullmatch(r"\d{1,6}(,\d{1,6}){3}", text.replace(" ", "")):
        box = Box(*map(int, text.split(",")))
        if box.width and box.height:
            return box
    raise UsageError(f"--box {text}: expected X,Y,WIDTH,HEIGHT in whole pixels, such as 0,0,64,32.")
