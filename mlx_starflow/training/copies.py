"""Copies of a training picture that count as further pictures: its mirror image, and pictures that
are shifted by some pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

FARTHEST = 0.1  # largest shift in each direction, as a share of the picture's side


@dataclass(frozen=True)
class Copies:
    """Which copies of every picture are used."""

    flip: bool = False  # also mirrored
    shifts: int = 0  # number of shifted copies

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of shifts and of mirrors, the picture itself included."""
        return 1 + self.shifts, 1 + self.flip

    @property
    def count(self) -> int:
        """Number of copies, the picture itself included."""
        return self.shape[0] * self.shape[1]

    def each(self) -> Iterator[Copy]:
        """All copies, as (shift, mirror) in the order of ``shape``; the first is the picture."""
        for shift in range(1 + self.shifts):
            for mirror in (False, True)[: 1 + self.flip]:
                yield Copy(shift, mirror)


@dataclass(frozen=True)
class Copy:
    """One of the copies of a picture."""

    shift: int  # which of the shifted copies; 0: not shifted
    mirror: bool

    @property
    def suffix(self) -> str:
        """Distinguishes the copy in the file of latents."""
        shifted = f".shifted-{self.shift}" if self.shift else ""
        return f"{shifted}{'.mirrored' if self.mirror else ''}"

    def of(self, image: Image.Image, digest: str) -> Image.Image:
        """The copy of a picture; ``digest`` (hexadecimal) and ``shift`` determine by how much it is
        shifted. The pixels of its border fill what the picture leaves."""
        if self.shift:
            rng = np.random.default_rng([int(digest[:15], 16), self.shift])
            image = _shifted(image, rng)
        return ImageOps.mirror(image) if self.mirror else image


def _shifted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    most = [max(1, round(FARTHEST * side)) for side in (image.height, image.width)]
    top, left = (int(rng.integers(-m, m + 1)) for m in most)
    return moved(image, top, left)


def moved(image: Image.Image, top: int, left: int) -> Image.Image:
    """A picture moved up and to the left by pixels (less than 0: down, to the right). The pixels of
    its border fill what it leaves."""
    pixels = np.asarray(image)
    rows = np.clip(np.arange(image.height) + top, 0, image.height - 1)
    columns = np.clip(np.arange(image.width) + left, 0, image.width - 1)
    return Image.fromarray(pixels[rows][:, columns])
