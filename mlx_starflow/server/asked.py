"""Reading a request for pictures: the fields of the OpenAI API and of this server's own API."""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import dataclass
from typing import Any

from ..generation.settings import MAX_SEED
from .errors import RequestError
from .fields import Fields, wrong
from .options import Limits

FORMATS = {"png": ".png", "jpeg": ".jpg", "jpg": ".jpg", "webp": ".webp"}
SMALLEST_SIDE = 16


@dataclass(frozen=True)
class FileForm:
    """The file format of a picture."""

    format: str = "png"  # "png" | "jpeg" | "webp"
    quality: int = 95  # of JPEG and WebP, 1 to 100

    @property
    def suffix(self) -> str:
        """The suffix of a file name, such as ".png"."""
        return FORMATS[self.format]

    @property
    def media_type(self) -> str:
        """The media type, such as "image/png"."""
        return f"image/{self.format}"


@dataclass(frozen=True)
class Asked:
    """The pictures that a request asks for."""

    prompt: str
    seeds: tuple[int, ...]  # one per picture that is drawn
    options: dict[str, Any]  # of Pipeline.generate
    size: tuple[int, int] | None = None  # width and height to send; None: as drawn
    best_of: bool = False  # send only the picture that fits its prompt best
    form: FileForm = FileForm()

    @property
    def count(self) -> int:
        """The number of pictures to send."""
        return 1 if self.best_of else len(self.seeds)


def read_counts(fields: Fields, limits: Limits) -> tuple[int, int]:
    """The fields n and best_of, 1 if they are missing. Errors: RequestError."""
    count = fields.whole("n", 1, limits.pictures, 1) or 1
    best_of = fields.whole("best_of", 1, limits.best_of, 1) or 1
    if best_of > 1 and count > 1:
        raise RequestError(
            400, "best_of sets the number of pictures and keeps one; leave n out.", "best_of"
        )
    return count, best_of


def read_asked(
    fields: Fields, limits: Limits, sizes: dict[str, str], prompt_needed: bool = True
) -> Asked:
    """Read the fields of a request. ``sizes``: of the model, aspect ratio → "WxH". Errors:
    RequestError naming the field."""
    prompt = fields.text("prompt", limits.prompt)
    if prompt is None and prompt_needed:
        raise RequestError(400, "prompt is missing.", "prompt", "missing")
    count, best_of = read_counts(fields, limits)
    size = read_size(fields, limits)
    options: dict[str, Any] = {
        "guidance": fields.number("guidance", 0, 100),
        "sampler": fields.text("sampler", 40),
        "steps": fields.whole("steps", 1, 10_000),
        "tolerance": fields.number("tolerance", 0, 1),
        "negative_prompt": fields.text("negative_prompt", limits.prompt),
        "aspect_ratio": fields.text("aspect_ratio", 10),
    }
    if size is not None and options["aspect_ratio"] is None:
        options["aspect_ratio"] = nearest(size, sizes)
    return Asked(
        prompt or "",
        read_seeds(fields, max(count, best_of)),
        {name: value for name, value in options.items() if value is not None},
        size,
        best_of > 1,
        read_form(fields),
    )


def read_seeds(fields: Fields, count: int) -> tuple[int, ...]:
    """seed, seed + 1, ...; random seeds if the field is absent or -1, as in other servers."""
    first = fields.whole("seed", -1, MAX_SEED - 1)
    if first is None or first < 0:
        return tuple(secrets.randbelow(MAX_SEED) for _ in range(count))
    return tuple((first + i) % MAX_SEED for i in range(count))


def read_size(fields: Fields, limits: Limits) -> tuple[int, int] | None:
    """The field "size", "WxH" in pixels, as (width, height); None if it is "auto" or absent."""
    text = fields.text("size", 20)
    if text is None or text == "auto":
        return None
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text, re.ASCII)
    if match is None:
        raise wrong("size", text, 'a size such as "512x512", or "auto"')
    width, height = int(match[1]), int(match[2])
    if not all(SMALLEST_SIDE <= side <= limits.side for side in (width, height)):
        raise wrong("size", text, f"sides from {SMALLEST_SIDE} to {limits.side} pixels")
    return width, height


def read_form(fields: Fields) -> FileForm:
    """The file format from output_format and output_compression. A transparent background is an
    error, since models draw opaque pictures."""
    background = fields.choice("background", ("auto", "opaque", "transparent"), "auto")
    if background == "transparent":
        raise RequestError(
            400,
            "This model draws opaque pictures only; leave background out.",
            "background",
            "unsupported",
        )
    form = fields.choice("output_format", tuple(FORMATS), "png")
    compression = fields.whole("output_compression", 0, 100)
    quality = 95 if compression is None else max(compression, 1)
    return FileForm("jpeg" if form == "jpg" else form, quality)


def nearest(size: tuple[int, int], sizes: dict[str, str]) -> str:
    """The aspect ratio in ``sizes`` that is nearest to that of a (width, height)."""

    def distance(ratio: str) -> float:
        width, height = (int(side) for side in sizes[ratio].split("x"))
        return abs(math.log(size[0] / size[1] * height / width))

    return min(sizes, key=distance)
