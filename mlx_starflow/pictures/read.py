"""Reading the user's pictures: turned upright, without transparency, at the model's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import ImageError, ImageUsageError, UsageError
from ..files.regular import is_regular
from .opening import SUFFIXES, is_animated, is_picture, opened

FITS = ("refuse", "crop", "stretch")
STRIP = 256  # rows in which transparency is removed at once
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """A still picture in RGB, upright, and the changes that were made to it."""

    image: Image.Image  # mode RGB
    path: str
    notes: tuple[str, ...] = ()  # changes, phrased to follow "it was"


def open_picture(path: str | Path) -> Picture:
    """Read one picture file.

    The picture is turned as its EXIF orientation says, grey, palette and CMYK pictures become RGB,
    and transparent pixels white; ``notes`` names the changes. Errors: ImageError for a file that is
    missing, broken, animated or not a picture.
    """
    path, notes = Path(path), []
    if path.is_dir():
        raise ImageUsageError(f"{path} is a directory; name a picture in it.")
    with opened(path) as image:
        if is_animated(image):
            raise ImageError(f"{path} is animated; save the frame to use as a picture of its own.")
        image.load()
        turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
        if turned:
            image = ImageOps.exif_transpose(image)
            notes.append("turned upright, as its EXIF orientation says")
        return Picture(_in_colour(image, path, notes), str(path), tuple(notes))


def _in_colour(image: Image.Image, path: Path, notes: list[str]) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's conversion would clip
        numbers = np.asarray(image)
        if numbers.min() < 0 or numbers.max() > 65535:
            raise ImageError(f"{path}: its grey values are not 16-bit; save it with 8 bits.")
        image = Image.fromarray(((numbers.astype(np.uint32) + 128) // 257).astype(np.uint8))
        notes.append("reduced from 16 to 8 bits")
    if image.mode == "F":
        raise ImageError(f"{path} holds floating-point numbers; save it with 8 bits a channel.")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            image = on_white(image)
            notes.append("put on a white background where it is transparent")
    elif image.mode == "CMYK":
        notes.append("converted from CMYK without a colour profile")
    return image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """An RGBA picture on a white background, as RGB. Works in strips to save memory."""
    result = Image.new("RGB", image.size, "white")
    for top in range(0, image.height, STRIP):
        part = image.crop((0, top, image.width, min(top + STRIP, image.height)))
        white = Image.new("RGBA", part.size, "white")
        result.paste(Image.alpha_composite(white, part).convert("RGB"), (0, top))
    return result


def in_grey(picture: Picture) -> Picture:
    """The picture in grey, for a model without colours; noted if the picture had colours."""
    grey = picture.image.convert("L").convert("RGB")
    if np.abs(np.asarray(grey, int) - np.asarray(picture.image, int)).max() <= 1:
        return picture
    note = "converted to grey, since this model has no colours"
    return Picture(grey, picture.path, (*picture.notes, note))


def fitted(picture: Picture, sizes: list[tuple[int, int]], fit: str = "refuse") -> Picture:
    """The picture at one of the model's ``sizes`` (width, height) in pixels.

    fit: what to do with another size. "refuse": raise an ImageError. "crop": cut it around the
    centre to the nearest shape and scale it. "stretch": scale it without keeping the shape.
    Errors: ImageError, UsageError.
    """
    if fit not in FITS:
        raise UsageError(f"fit is {fit!r}; expected one of {', '.join(FITS)}.")
    width, height = picture.image.size
    if (width, height) in sizes:
        return picture
    listing = ", ".join(f"{w}x{h}" for w, h in sizes)
    if fit == "refuse":
        raise ImageUsageError(
            f"{picture.path} is {width}x{height} pixels; this model's pictures are {listing}. "
            "Use --fit crop or --fit stretch, or scale the picture first."
        )
    size = min(sizes, key=lambda s: abs(np.log(s[0] / s[1] * height / width)))
    if fit == "crop":
        image = ImageOps.fit(picture.image, size, Image.Resampling.LANCZOS)
    else:
        image = picture.image.resize(size, Image.Resampling.LANCZOS)
    done = "cropped" if fit == "crop" else "stretched"
    note = f"{done} from {width}x{height} to {size[0]}x{size[1]}"
    return Picture(image, picture.path, (*picture.notes, note))


def open_mask(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """A mask file as bools (height, width); True: redraw this pixel.

    ``size``: (width, height) that the mask must have. True for white pixels (128 and above), or, if
    the file has transparency, for transparent pixels. Errors: ImageError for another size or a file
    that cannot be read.
    """
    with_alpha = _alpha_of(path)
    picture = open_picture(path)
    if picture.image.size != size:
        w, h = picture.image.size
        raise ImageUsageError(
            f"The mask {path} is {w}x{h} pixels and the picture {size[0]}x{size[1]}; they must "
            "have the same size."
        )
    if with_alpha is not None:
        return with_alpha < 128
    return np.asarray(picture.image.convert("L")) >= 128


def _alpha_of(path: str | Path) -> np.ndarray | None:
    """The alpha channel of a picture, turned upright; None if nothing in it is transparent."""
    try:
        with opened(path) as file:
            if file.mode not in ("RGBA", "LA", "PA") and "transparency" not in file.info:
                return None
            alpha = np.asarray(ImageOps.exif_transpose(file).convert("RGBA").getchannel("A"))
    except ImageError:  # ``open_picture``, called next, reports the error
        return None
    return alpha if alpha.min() < 128 else None


def pictures_in(paths: list[Path]) -> list[Path]:
    """Replace each directory among the paths by the pictures in it, sorted by name.

    These are the files with a picture's suffix, and others that begin like a picture. Hidden files
    and sub-directories are ignored. Errors: ImageError if a path does not exist or a directory has
    no pictures.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise ImageUsageError(f"{path}: there is no such file.")
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if _counts(p))
        if not inside:
            raise ImageError(f"{path} holds no pictures ({', '.join(SUFFIXES)}).")
        found += inside
    return found


def _counts(path: Path) -> bool:
    """Whether a path in a directory is a picture."""
    if path.name.startswith(".") or not is_regular(path):
        return False
    return path.suffix.lower() in SUFFIXES or is_picture(path)
