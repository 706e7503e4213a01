"""What a request for pictures asks: the fields of the OpenAI API and our own, read and resolved."""

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
    """How a picture is written and sent."""

    format: str = "png"  # "png" | "jpeg" | "webp"
    quality: int = 95  # of JPEG and WebP

    @property
    def suffix(self) -> str:
        return FORMATS[self.format]

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"


@dataclass(frozen=True)
class Asked:
    """Pictures that a request asks for."""

    prompt: str
    seeds: tuple[int, ...]  # one for each picture that is drawn
    options: dict[str, Any]  # of Pipeline.generate
    size: tuple[int, int] | None = None  # pixels to deliver; None: as the model draws
    best_of: bool = False  # deliver only the picture that fits its prompt best
    form: FileForm = FileForm()

    @property
    def count(self) -> int:
        """Pictures that are delivered."""
        return 1 if self.best_of else len(self.seeds)


def read_asked(
    fields: Fields, limits: Limits, sizes: dict[str, str], prompt_needed: bool = True
) -> Asked:
    """The drawing that a request describes. ``sizes``: the model's, ratio → "WxH".
    Errors: RequestError naming the field."""
    prompt = fields.text("prompt", limits.prompt)
    if prompt is None and prompt_needed:
        raise RequestError(400, "prompt is missing; say what to draw.", "prompt", "missing")
    count = fields.whole("n", 1, limits.pictures, 1) or 1
    best_of = fields.whole("best_of", 1, limits.best_of, 1) or 1
    if best_of > 1 and count > 1:
        raise RequestError(
            400, "best_of draws a batch of its own and keeps one; leave n out.", "best_of"
        )
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
    """seed, seed + 1, ...; at random where none is given (or -1, as other servers write it)."""
    first = fields.whole("seed", -1, MAX_SEED - 1)
    if first is None or first < 0:
        return tuple(secrets.randbelow(MAX_SEED) for _ in range(count))
    return tuple((first + i) % MAX_SEED for i in range(count))


def read_size(fields: Fields, limits: Limits) -> tuple[int, int] | None:
    """ "WxH" in pixels; None for "auto" or where it is not given."""
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
    """output_format and output_compression, and what cannot be honoured of background."""
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
    """The ratio among the model's sizes whose shape is nearest to a size."""

    def distance(ratio: str) -> float:
        width, height = (int(side) for side in sizes[ratio].split("x"))
        return abs(math.log(size[0] / size[1] * height / width))

    return min(sizes, key=distance)
