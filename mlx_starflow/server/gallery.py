"""The gallery: the pictures in the output directory, with the settings stored in them.

There is no other database; a picture is identified by its file name.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..pictures.metadata import save_picture, settings_in
from ..pictures.opening import opened
from .errors import RequestError

SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.(png|jpg|jpeg|webp)")
LARGEST = 64 << 20  # bytes; the settings of larger files are not read
REMEMBERED = 2000  # pictures whose settings are kept in memory
PART = re.compile(r"\.[A-Za-z0-9._-]+\.part")  # temporary files of interrupted writes


@dataclass(frozen=True)
class Kept:
    """A picture in the directory."""

    name: str
    path: Path
    bytes: int
    modified: float  # seconds since the epoch

    @property
    def media_type(self) -> str:
        """The media type, such as "image/png"."""
        return SUFFIXES[self.path.suffix.lower()]


class Gallery:
    """The pictures of one directory. Nothing outside it is read or written, and links in it are
    not followed. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._secret = secrets.token_bytes(16)
        self._read: OrderedDict[tuple[str, float, int], dict[str, Any] | None] = OrderedDict()
        self._lock = threading.Lock()

    def clean(self) -> None:
        """Remove temporary files of interrupted writes."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if PART.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                    path.unlink(missing_ok=True)

    def save(
        self, image: Image.Image, metadata: dict[str, Any], suffix: str, quality: int = 95
    ) -> Kept:
        """Write a picture under a new name made of the time and its seed. Errors: ImageError if the
        directory cannot be written."""
        seed = metadata.get("seed")
        stem = time.strftime("%Y%m%d-%H%M%S") + (f"-{seed}" if isinstance(seed, int) else "")
        path = save_picture(
            image, self.folder / f"{stem}{suffix}", metadata, overwrite=False, quality=quality
        )
        return self._kept(path)

    def find(self, name: str) -> Kept:
        """A picture by its name. Errors: RequestError 404."""
        if NAME.fullmatch(name):
            path = self.folder / name
            if path.is_file() and not path.is_symlink():
                return self._kept(path)
        raise RequestError(404, "There is no picture of this name.", "picture", "not_found")

    def delete(self, name: str) -> None:
        """Delete a picture. Errors: RequestError 404."""
        self.find(name).path.unlink(missing_ok=True)

    def list(self, most: int, before: str | None = None) -> tuple[list[Kept], str | None]:
        """At most ``most`` pictures that are older than the one named ``before``, newest first; and
        the value of ``before`` for the next call, None at the end."""
        found = []
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                    found.append(self._kept(path))
        found.sort(key=lambda kept: (-kept.modified, kept.name))
        if before is not None:
            names = [kept.name for kept in found]
            start = names.index(before) + 1 if before in names else 0
            found = found[start:]
        more = found[most - 1].name if len(found) > most else None
        return found[:most], more

    def settings(self, kept: Kept) -> dict[str, Any] | None:
        """The settings stored in a picture; None if there are none."""
        key = kept.name, kept.modified, kept.bytes
        with self._lock:
            if key in self._read:
                return self._read[key]
        found = None
        if kept.bytes <= LARGEST:
            try:
                with opened(kept.path, ("PNG", "JPEG", "WEBP")) as picture:
                    found = settings_in(picture)
            except Exception:  # for broken files, Pillow raises many kinds of errors
                found = None
        with self._lock:
            self._read[key] = found
            while len(self._read) > REMEMBERED:
                self._read.popitem(last=False)
        return found

    def describe(self, kept: Kept) -> dict[str, Any]:
        """The object for /api/gallery: name, address and settings, without the longest ones."""
        settings = self.settings(kept)
        if settings is not None:
            settings = {k: v for k, v in settings.items() if k not in ("blocks", "noise")}
        return {
            "name": kept.name,
            "url": f"/files/{kept.name}?key={self.key(kept.name)}",
            "bytes": kept.bytes,
            "modified": round(kept.modified, 3),
            "settings": settings,
        }

    def key(self, name: str) -> str:
        """A key for the address of one picture, used instead of the API key, since browsers load
        pictures without headers. It is valid until the server ends."""
        return hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()[:32]

    def opens(self, name: str, key: str) -> bool:
        """Whether ``key`` is the key of a picture."""
        return hmac.compare_digest(self.key(name), key)

    def _kept(self, path: Path) -> Kept:
        facts = path.stat()
        return Kept(path.name, path, facts.st_size, facts.st_mtime)
