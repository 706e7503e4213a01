"""Settings stored in pictures, so that a picture can be drawn again.

They are JSON, written as PNG text, which editors show, and as EXIF UserComment, which other
generators use. GIF files have them in their comment.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from ..errors import ImageError, ImageUsageError
from ..files.json import JSONError, parse_json, read_json
from .arrays import format_of, write_whole
from .opening import opened

PNG_KEY = "mlx-starflow"
_EXIF_IFD, _USER_COMMENT, _ASCII = 0x8769, 0x9286, b"ASCII\0\0\0"
MAX_SETTINGS = 8 << 20  # most bytes of settings that are read; stored noise takes up to 1.4 MB
_JPEG_LIMIT = 60_000  # bytes; the EXIF segment of a JPEG file is limited to 64 KiB


def save_picture(
    picture: Image.Image,
    path: str | Path,
    metadata: dict[str, Any] | None = None,
    overwrite: bool = True,
    quality: int = 95,
) -> Path:
    """Write a picture with its settings in the format of the path's suffix.

    ``quality``: 1 to 100, for JPEG and WebP. With overwrite=False an existing file is kept, and
    the first free name of stem_1, stem_2, ... is taken. Returns the path that was written. Errors:
    ImageError for an unknown suffix or a path that cannot be written.
    """
    path = Path(path)
    form = format_of(path)

    content = BytesIO()  # written to memory first, since Pillow does not report all write errors
    picture.save(content, format=form, **_save_options(form, metadata, quality))
    return write_whole(path, lambda file: file.write(content.getbuffer()), overwrite)


def _save_options(form: str, metadata: dict[str, Any] | None, quality: int) -> dict[str, Any]:
    options = stored_in(form, metadata)
    return options if form == "PNG" else options | {"quality": quality}


def stored_in(form: str, metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments for Pillow's ``save`` that store settings in a PNG, JPEG, WEBP or GIF file."""
    options: dict[str, Any] = {"pnginfo": PngImagePlugin.PngInfo()} if form == "PNG" else {}
    if metadata is None:
        return options
    text = json.dumps(metadata)
    if form == "GIF":  # comments are the only place for text
        return {"comment": f"{PNG_KEY}{text}".encode("ascii")}
    if form == "JPEG" and len(text) > _JPEG_LIMIT:
        text = json.dumps(_without_noise(metadata))
    options["exif"] = _exif(text)
    if form == "PNG":
        options["pnginfo"].add_text(PNG_KEY, text)
    return options


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The settings stored in a picture or in a JSON file beside it. Errors: ImageError if there are
    none.

    The types of the values are not checked here; callers read them through ``Fields``.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        try:
            data = read_json(path, MAX_SETTINGS, ImageError)
        except FileNotFoundError:
            raise ImageUsageError(f"{path}: there is no such file.") from None
    else:
        text = _text_in(path)
        if text is None:
            raise ImageError(
                f"{path}: this picture holds no settings of mlx-starflow. If it has a .json file "
                "beside it, give that; or draw the picture again without --no-metadata."
            )
        try:
            data = parse_json(text, MAX_SETTINGS)
        except JSONError as error:
            raise ImageError(f"{path}: the settings in it are not JSON ({error}).") from None
    if not isinstance(data, dict) or "generator" not in data:
        raise ImageError(f"{path}: this is JSON, but not settings of mlx-starflow.")
    return data


def settings_in(picture: Image.Image) -> dict[str, Any] | None:
    """The settings of this program stored in an open picture, None if there are none. Does not
    decode the pixels."""
    text = _stored_text(picture)
    try:
        data = parse_json(text, MAX_SETTINGS) if text is not None else None
    except JSONError:
        return None
    return data if isinstance(data, dict) and "generator" in data else None


def _text_in(path: Path) -> str | None:
    with opened(path) as picture:
        picture.load()  # PNG text may also follow the pixels
        return _stored_text(picture)


def _exif(text: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _ASCII + text.encode("ascii")
    return exif.tobytes()  # as bytes, since Pillow ignores an Exif object without main directory


def _stored_text(picture: Image.Image) -> str | None:
    text = picture.info.get(PNG_KEY)
    if isinstance(text, str):
        return text
    remark = picture.info.get("comment")
    if isinstance(remark, bytes) and remark.startswith(PNG_KEY.encode()):
        return remark[len(PNG_KEY) :].decode("ascii", errors="replace")
    comment = picture.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if isinstance(comment, bytes) and comment.startswith(_ASCII):
        return comment[len(_ASCII) :].decode("ascii", errors="replace")
    return None


def _without_noise(metadata: dict[str, Any]) -> dict[str, Any]:
    """The settings without the data of given noise; its hash and file name are kept."""
    noise = metadata.get("noise")
    if not isinstance(noise, dict):
        return metadata
    return {**metadata, "noise": {k: v for k, v in noise.items() if k != "data"}}
