"""Bodies of requests: read whole within bounds, in memory; pictures decoded within bounds."""

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
        """The first file of the first of these names that was sent."""
        for name in names:
            if self.files.get(name):
                return self.files[name][0]
        return None


async def read_body(request: Request, limits: Limits) -> Body:
    """JSON, or a form. Errors: RequestError 400 or 413."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, limits)
    raw = b"".join([chunk async for chunk in request.stream()])
    if len(raw) > limits.json_bytes:
        raise RequestError(
            413, f"A JSON body may have {limits.json_bytes} bytes.", code="body_too_large"
        )
    # What curl -d sends is called a form though it is JSON.
    if kind == "application/x-www-form-urlencoded" and not raw.lstrip().startswith(b"{"):
        return Body(Fields(_collected(_pairs(raw)), form=True))
    return Body(Fields(json_object(raw, limits.json_bytes)))


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise RequestError(400, "The form cannot be read.") from None


def _collected(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Values by name; a name that comes several times has a list."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            before = values[name]
            values[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            values[name] = value
    return values


class _InMemory(MultiPartParser):
    """Starlette's parser without temporary files: the whole body is bounded already."""

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
    except Exception as error:  # what the parser raises for a broken body differs by version
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
    """A still PNG, JPEG or WebP picture, upright, its transparency kept: mode RGB or RGBA. Its
    size is checked before its pixels are decoded. Errors: RequestError 400 or 413, ImageError."""
    try:
        with opened_data(data, what, FORMATS) as picture:
            if picture.width * picture.height > limits.pixels:
                raise RequestError(
                    413,
                    f"{what} is {picture.width}x{picture.height} pixels; at most "
                    f"{limits.pixels} are read. Scale it down.",
                    what,
                    "too_many_pixels",
                )
            if getattr(picture, "n_frames", 1) > 1:
                raise ImageError(f"{what} is animated; send one still picture.")
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith(("I", "F")):
                raise ImageError(f"{what} has more than 8 bits a channel; save it with 8.")
            transparent = "A" in upright.getbands() or "transparency" in upright.info
            return upright.convert("RGBA" if transparent else "RGB")
    except (RequestError, ImageError):
        raise
    except Exception:  # Pillow's readers raise whatever a broken file makes them raise
        raise ImageError(
            f"{what} is not a picture that can be read. Send a complete PNG, JPEG or WebP."
        ) from None


def opaque(picture: Image.Image) -> Image.Image:
    """A picture in RGB; what is transparent is laid on white."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    below = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(below, picture).convert("RGB")


def mask_of(picture: Image.Image, alpha_only: bool) -> np.ndarray:
    """A mask (height, width) of bools, True = paint anew: what is transparent or, in a picture
    without transparency and unless ``alpha_only``, what is white."""
    if picture.mode == "RGBA":
        clear = np.asarray(picture.getchannel("A")) < 128
        if clear.any() or alpha_only:
            return clear
    return np.asarray(picture.convert("L")) >= 128
