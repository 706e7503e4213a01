"""Reading request bodies and decoding uploaded pictures, in memory and within limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image, ImageOps
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..errors import ImageError
from ..pictures.opening import opened_data
from .errors import RequestError
from .fields import Fields, json_object
from .options import Limits

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_FIELDS = 64
MOST_FILES = 8


@dataclass(frozen=True)
class Body:
    """The fields of a request and the files sent with it, by field name."""

    fields: Fields
    files: dict[str, list[bytes]] = field(default_factory=dict)

    def file(self, *names: str) -> bytes | None:
        """The first file under the first of these names that has one, or None."""
        for name in names:
            if self.files.get(name):
                return self.files[name][0]
        return None


async def read_body(request: Request, limits: Limits) -> Body:
    """Read a body that is JSON or a form. Errors: RequestError 400 or 413."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, limits)
    raw = b"".join([chunk async for chunk in request.stream()])
    if len(raw) > limits.json_bytes:
        raise RequestError(
            413, f"The body may have at most {limits.json_bytes} bytes.", code="body_too_large"
        )
    # ``curl -d`` sends JSON with the content type of a form.
    if kind == "application/x-www-form-urlencoded" and not raw.lstrip().startswith(b"{"):
        return Body(Fields(_collected(_pairs(raw)), form=True))
    return Body(Fields(json_object(raw, limits.json_bytes)))


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise RequestError(400, "The form cannot be read.") from None


def _collected(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Name -> value, or list of values if the name occurs several times."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            before = values[name]
            values[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            values[name] = value
    return values


class _InMemory(MultiPartParser):
    """Starlette's parser without temporary files, since the size of the body is limited."""

    spool_max_size = 1 << 40


async def _read_form(request: Request, limits: Limits) -> Body:
    parser = _InMemory(
        request.headers,
        request.stream(),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=limits.json_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(400, f"The form cannot be read: {error.message}") from None
    except RequestError:
        raise
    except Exception as error:  # the parser's errors differ by version
        raise RequestError(400, f"The form cannot be read ({type(error).__name__}).") from None
    texts: list[tuple[str, Any]] = []
    files: dict[str, list[bytes]] = {}
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.setdefault(name, []).append(await value.read())
            else:
                texts.append((name, value))
    finally:
        await form.close()
    return Body(Fields(_collected(texts), form=True), files)


def decoded(data: bytes, limits: Limits, what: str = "image") -> Image.Image:
    """Decode a still PNG, JPEG or WebP picture, and turn it upright. Returns mode RGB, or RGBA if
    it has transparency. The size is checked before the pixels are decoded. ``what``: the field, for
    messages. Errors: RequestError 413, ImageError."""
    try:
        with opened_data(data, what, FORMATS) as picture:
            if picture.width * picture.height > limits.pixels:
                raise RequestError(
                    413,
                    f"{what} is {picture.width}x{picture.height} pixels; at most "
                    f"{limits.pixels} pixels are allowed. Scale it down.",
                    what,
                    "too_many_pixels",
                )
            if getattr(picture, "n_frames", 1) > 1:
                raise ImageError(f"{what} is animated; send one still picture.")
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith(("I", "F")):
                raise ImageError(f"{what} has more than 8 bits per channel; save it with 8.")
            transparent = "A" in upright.getbands() or "transparency" in upright.info
            return upright.convert("RGBA" if transparent else "RGB")
    except (RequestError, ImageError):
        raise
    except Exception:  # for broken files, Pillow raises many kinds of errors
        raise ImageError(
            f"{what} is not a picture that can be read. Send a complete PNG, JPEG or WebP."
        ) from None


def opaque(picture: Image.Image) -> Image.Image:
    """The picture in RGB, on a white background."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    below = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(below, picture).convert("RGB")


def mask_of(picture: Image.Image, alpha_only: bool) -> np.ndarray:
    """A mask (height, width) of bools, True = redraw: transparent pixels; in a picture without
    transparent pixels, white ones, unless it is RGBA and ``alpha_only``."""
    if picture.mode == "RGBA":
        clear = np.asarray(picture.getchannel("A")) < 128
        if clear.any() or alpha_only:
            return clear
    return np.asarray(picture.convert("L")) >= 128
