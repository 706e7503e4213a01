"""Local defects of a painting. Each function returns the picture and the boxes (top, left, bottom,
right) of the defect, in pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from ..painter import Scene
from ..painter.layout import box_of

SIDE = 16  # pixels of a patch

Box = tuple[int, int, int, int]
Defect = Callable[[np.ndarray, Scene, np.random.Generator], tuple[np.ndarray, list[Box]]]


def swapped(picture: np.ndarray, scene: Scene, rng: np.random.Generator):
    """Exchange two patches that are far from each other."""
    first, second = _corner(picture, rng), _corner(picture, rng)
    while np.abs(np.subtract(first, second)).sum() < 3 * SIDE:
        second = _corner(picture, rng)
    changed, a, b = picture.copy(), _box(first), _box(second)
    changed[_area(a)], changed[_area(b)] = picture[_area(b)], picture[_area(a)]
    return changed, [a, b]


def blurred(picture: np.ndarray, scene: Scene, rng: np.random.Generator):
    """Blur a patch (Gaussian, 4 pixels)."""
    box, changed = _box(_corner(picture, rng)), picture.copy()
    soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(4)))
    changed[_area(box)] = soft[_area(box)]
    return changed, [box]


def painted_over(picture: np.ndarray, scene: Scene, rng: np.random.Generator):
    """Fill a patch with one random colour."""
    box, changed = _box(_corner(picture, rng)), picture.copy()
    changed[_area(box)] = rng.integers(0, 256, 3)
    return changed, [box]


def cut_out(picture: np.ndarray, scene: Scene, rng: np.random.Generator):
    """Fill the subject's box with the colours of its left and right border."""
    mask, changed = box_of(scene, picture.shape[0]), picture.copy()
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    before = picture[top:bottom, max(left - 1, 0)].astype(float)[:, None]
    after = picture[top:bottom, min(right, picture.shape[1] - 1)].astype(float)[:, None]
    share = np.linspace(0, 1, right - left)[None, :, None]
    changed[top:bottom, left:right] = np.round(before * (1 - share) + after * share)
    return changed, [(int(top), int(left), int(bottom), int(right))]


DEFECTS: dict[str, Defect] = {
    "patch swapped": swapped,
    "patch blurred": blurred,
    "patch painted over": painted_over,
    "subject cut out": cut_out,
}


def _corner(picture: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    y, x = rng.integers(0, picture.shape[0] - SIDE + 1, 2)
    return int(y), int(x)


def _box(corner: tuple[int, int]) -> Box:
    return corner[0], corner[1], corner[0] + SIDE, corner[1] + SIDE


def _area(box: Box) -> tuple[slice, slice]:
    return slice(box[0], box[2]), slice(box[1], box[3])
