"""Parts that several subjects share: mirrored outlines, pairs of eyes, pale markings."""

from __future__ import annotations

from ..palette import INK, RGB, WHITE, Coat
from ..pen import Pen

_WHITE_OF_EYE: RGB = (255, 252, 244)


def mirror(points, about: float = 0.0) -> list[tuple[float, float]]:
    """The points of the left half, followed by their mirror image at the line x = ``about``."""
    return [*points, *((2 * about - x, y) for x, y in reversed(points))]


def is_dark(colour: RGB) -> bool:
    """Whether black lines on this colour are hard to see."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 100


def eyes(
    pen: Pen, x: float, y: float, apart: float, r: float, on: RGB, iris: RGB | None = None
) -> None:
    """Two round eyes, at the distance ``apart`` left and right of ``x``.

    On a dark colour they get a white border, so that they are visible.
    """
    for side in (-1, 1):
        middle = x + side * apart
        if iris is not None:
            pen.oval(middle, y, r * 1.25, r * 1.35, iris)
            pen.oval(middle, y, r * 0.68, r * 1.15, INK)
        else:
            if is_dark(on):
                pen.oval(middle, y, r * 1.32, r * 1.46, _WHITE_OF_EYE)
            pen.oval(middle, y, r, r * 1.15, INK)
        pen.oval(middle + r * 0.32, y + r * 0.42, r * 0.38, r * 0.38, (255, 255, 255))


def pale(coat: Coat) -> RGB:
    """The colour of white markings, which is visible on a white coat too."""
    return (255, 255, 255) if coat.name == "white" else WHITE


def cheeks(pen: Pen, x: float, y: float, apart: float, r: float, colour: RGB) -> None:
    for side in (-1, 1):
        pen.oval(x + side * apart, y, r, r * 0.7, colour)
