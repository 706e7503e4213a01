"""Opening picture files safely: known formats and regular files only, with a limit on pixels.

For some formats (PostScript) Pillow starts other programs, and a small file can hold a picture that
fills the memory. All pictures are therefore opened with this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, ImageUsageError, StarflowError
from ..files.regular import NotRegular, open_regular

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 50_000_000  # of a picture; preparing one takes about 400 MB
MAX_BYTES = 1 << 29  # of a picture file


def opened(
    path: str | Path, formats: Sequence[str] = FORMATS
) -> AbstractContextManager[Image.Image]:
    """Open a picture file, as a context manager. Its pixels are not decoded until ``load``.

    Errors: ImageError naming the file, for all errors of Pillow inside the ``with`` block too.
    """
    return _opened(lambda: open_regular(path), path, formats)


def opened_data(
    data: bytes, name: str, formats: Sequence[str] = FORMATS
) -> AbstractContextManager[Image.Image]:
    """``opened`` for the content of a file. ``name``: of the file, for messages."""
    return _opened(lambda: BytesIO(data), name, formats)


def picture_in(data: bytes, name: str) -> Image.Image:
    """The decoded picture in the content of a file. ``name``: for messages. Errors: ImageError."""
    with opened_data(data, name) as picture:
        picture.load()
        return picture.copy()


@contextmanager
def _opened(
    source: Callable[[], BinaryIO], path: str | Path, formats: Sequence[str]
) -> Iterator[Image.Image]:
    try:
        with source() as file:
            if file.seek(0, 2) > MAX_BYTES:
                raise ImageError(f"{path} has more than {MAX_BYTES >> 20} MiB; scale it down.")
            file.seek(0)
            with Image.open(file, formats=list(formats)) as picture:
                _check_pixels(picture, path)
                yield picture
    except StarflowError:
        raise
    except FileNotFoundError:
        raise ImageUsageError(f"{path}: there is no such file.") from None
    except NotRegular as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large(path, "too many pixels to be read safely")) from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{path}: this is not a picture in a supported format ({', '.join(FORMATS)}), or it is "
            "not complete."
        ) from None
    except Exception as error:  # for broken files, Pillow raises many kinds of errors
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(
            f"{path}: this picture cannot be read ({reason}). Is it complete, and a PNG, JPEG or "
            "WebP?"
        ) from None


def is_picture(path: str | Path) -> bool:
    """Whether a file begins like a picture in a supported format; its name does not matter."""
    try:
        with opened(path):
            return True
    except ImageError:
        return False


def is_animated(picture: Image.Image) -> bool:
    """Whether an open picture has a second frame. (Counting them would read the whole file.)"""
    if picture.format == "MPO":  # several views of one photo
        return False
    try:
        picture.seek(1)
    except EOFError:
        return False
    picture.seek(0)
    return True


def _check_pixels(picture: Image.Image, path: str | Path) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(f"{path}: this picture has no pixels.")
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(path, f"{width}x{height} pixels"))


def _too_large(path: str | Path, what: str) -> str:
    return (
        f"{path} has {what}; at most {MAX_PIXELS // 1_000_000} million pixels are allowed. Scale "
        "it down."
    )
