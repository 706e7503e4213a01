"""Arrays in [-1, 1] to PIL images and back; writing files so that they are always complete."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import mlx.core as mx
import numpy as np
from PIL import Image

from ..errors import ImageError, NumericsError
from .opening import opened

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_finite(x: mx.array, what: str) -> None:
    """Raise a NumericsError if x (B, ...) has NaN or infinity, naming the pictures. ``what``: the
    name of x in the message."""
    bad = ~mx.isfinite(x).reshape(x.shape[0], -1).all(axis=1)
    if bad.any().item():
        rows = [str(i + 1) for i, b in enumerate(np.array(bad)) if b]
        raise NumericsError(
            f"The {what} of picture {', '.join(rows)} of {x.shape[0]} holds NaN or infinity; "
            "nothing is saved. Try --dtype float32, a lower guidance, or another seed."
        )


def to_pictures(x: mx.array) -> list[Image.Image]:
    """Array (B, H, W, C) in about [-1, 1] -> B pictures.

    Pixels are round(255 clip((x + 1) / 2, 0, 1)). C is 3 (colour) or 1 (grey). Errors:
    NumericsError for NaN and infinity, ImageError.
    """
    check_finite(x, "image")
    if x.shape[-1] not in (1, 3):
        raise ImageError(f"A picture has 1 or 3 channels; this array has {x.shape[-1]}.")
    pixels = np.round(255 * np.clip((np.array(x.astype(mx.float32)) + 1) / 2, 0, 1))
    pixels = pixels.astype(np.uint8)
    return [Image.fromarray(p[:, :, 0] if p.shape[2] == 1 else p) for p in pixels]


def from_picture(picture: Image.Image, channels: int = 3) -> mx.array:
    """Picture -> array (1, H, W, channels) float32 in [-1, 1]; transparent pixels become white."""
    if picture.mode in ("RGBA", "LA", "P", "PA"):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(picture, dtype=np.float32) / 127.5 - 1
    return mx.array(pixels.reshape(1, picture.height, picture.width, channels))


def read_picture(path: str | Path) -> Image.Image:
    """Read and decode a picture file. Errors: ImageError."""
    with opened(path) as picture:
        picture.load()
        return picture


def format_of(path: str | Path) -> str:
    """Pillow's name of the format for a path's suffix. Errors: ImageError if it is unsupported."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ImageError(
            f"{path}: pictures are written as {', '.join(FORMATS)}; the name ends in {suffix!r}."
        )
    return FORMATS[suffix]


def write_whole(path: Path, write: Callable[[BinaryIO], object], overwrite: bool = True) -> Path:
    """Write a temporary file beside ``path`` and rename it, so that ``path`` is never incomplete.

    ``write`` gets the open file. With overwrite=False an existing file is kept, and the first free
    name of stem_1, stem_2, ... is taken. Returns the path that was written. Errors: ImageError if
    it cannot be written.
    """
    temporary = path.parent / f".{path.stem}-{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            return _put(temporary, path, overwrite)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"{path} cannot be written ({reason}); choose another path.") from error


def free_path(path: Path) -> Path:
    """The path if it does not exist, else the first free one of stem_1, stem_2, ..."""
    number, free = 0, path
    while os.path.lexists(free):  # True for broken links too
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return free


def _put(temporary: Path, path: Path, overwrite: bool) -> Path:
    if overwrite:
        os.replace(temporary, path)
        return path
    while True:
        free = free_path(path)
        try:
            os.link(temporary, free)  # unlike a rename, fails if another process has just made it
            return free
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            os.replace(temporary, free)
            return free
