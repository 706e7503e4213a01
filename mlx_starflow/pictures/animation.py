"""Writing animations as GIF, WebP or PNG, chosen by the suffix."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import ImageError, UsageError
from .arrays import write_whole
from .metadata import stored_in

FORMATS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}


def check_animation(path: Path, fps: float) -> None:
    """Raise a UsageError for an unsupported suffix or frame rate."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{path}: animations are written as {', '.join(FORMATS)}; the name ends in "
            f"{path.suffix!r}."
        )
    if not 0.1 <= fps <= 50:
        raise UsageError(f"fps is {fps}; expected 0.1 to 50 frames per second.")


def save_animation(
    frames: Sequence[Image.Image],
    path: Path,
    fps: float = 8.0,
    bounce: bool = False,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write frames as an animation that repeats for ever. Returns the path that was written: an
    existing file is not replaced, and the first free name of stem_1, stem_2, ... is taken.

    ``fps``: frames per second. ``bounce``: play the frames forwards, then backwards. ``metadata``:
    settings to store in the file. Errors: UsageError, ImageError.
    """
    check_animation(path, fps)
    if not frames:
        raise ImageError(f"{path}: an animation needs at least one frame.")
    row = [*frames, *reversed(frames[1:-1])] if bounce else list(frames)
    options = {"save_all": True, "append_images": row[1:], "duration": round(1000 / fps), "loop": 0}
    form = FORMATS[path.suffix.lower()]
    options |= stored_in(form, metadata)
    if form == "WEBP":
        options["quality"] = 90
    content = BytesIO()  # written to memory first, since Pillow does not report all write errors
    row[0].save(content, format=form, **options)
    return write_whole(path, lambda file: file.write(content.getbuffer()), overwrite=False)
