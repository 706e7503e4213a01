"""Opening a picture file: known formats only, regular files only, no more pixels than a limit.

Pillow knows formats that start other programs (PostScript) and sizes that fill the memory. Every
place that reads a picture opens it here.
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
MAX_PIXELS = 50_000_000  # of a picture that is read; about 400 MB while it is prepared
MAX_BYTES = 1 << 29  # of its file


def opened(
    path: str | Path, formats: Sequence[str] = FORMATS
) -> AbstractContextManager[Image.Image]:
    """A picture file whose pixels are not decoded yet (``load`` decodes them inside the block).

    Everything that Pillow raises in the block is an ImageError that names the file.
    """
    return _opened(lambda: open_regular(path), path, formats)


def opened_data(
    data: bytes, name: str, formats: Sequence[str] = FORMATS
) -> AbstractContextManager[Image.Image]:
    """The same for the content of a file; ``name`` begins the messages."""
    return _opened(lambda: BytesIO(data), name, formats)


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
            f"{path}: this is not a picture that can be read ({', '.join(FORMATS)} are), or it is "
            "not complete."
        ) from None
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(
            f"{path}: this is not a picture that can be read ({reason}). Is it complete, and a "
            "PNG, JPEG or WebP?"
        ) from None


def is_picture(path: str | Path) -> bool:
    """Whether a file begins as a picture of a known format does, whatever it is called."""
    try:
        with opened(path):
            return True
    except ImageError:
        return False


def _check_pixels(picture: Image.Image, path: str | Path) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(f"{path}: this picture has no pixels.")
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(path, f"{width}x{height} pixels"))


def _too_large(path: str | Path, what: str) -> str:
    return f"{path} has {what}; at most {MAX_PIXELS // 1_000_000} million are read. Scale it down."
