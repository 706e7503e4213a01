"""The output folder as the only database: pictures carry their settings, names are their keys."""

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
LARGEST = 64 << 20  # bytes of a file that is shown
REMEMBERED = 2000  # settings that were read
PART = re.compile(r"\.[A-Za-z0-9._-]+\.part")  # what an interrupted write of ours may leave


@dataclass(frozen=True)
class Kept:
    """A picture in the folder."""

    name: str
    path: Path
    bytes: int
    modified: float

    @property
    def media_type(self) -> str:
        return SUFFIXES[self.path.suffix.lower()]


class Gallery:
    """Pictures of one folder, newest first. Nothing outside it is read or written, and links in
    it are not followed. Any thread may call any method."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._secret = secrets.token_bytes(16)
        self._read: OrderedDict[tuple[str, float, int], dict[str, Any] | None] = OrderedDict()
        self._lock = threading.Lock()

    def clean(self) -> None:
        """Remove the parts of pictures that a killed server had begun to write."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if PART.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                    path.unlink(missing_ok=True)

    def save(
        self, image: Image.Image, metadata: dict[str, Any], suffix: str, quality: int = 95
    ) -> Kept:
        """Write a picture under a new name, its time and seed; it appears complete or not at all.
        Errors: ImageError where the folder cannot be written."""
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
        self.find(name).path.unlink(missing_ok=True)

    def list(self, most: int, before: str | None = None) -> tuple[list[Kept], str | None]:
        """Up to ``most`` pictures older than the one named ``before``, newest first, and the name
        to go on from; None at the end."""
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
        """The settings stored in a picture; None where there are none."""
        key = kept.name, kept.modified, kept.bytes
        with self._lock:
            if key in self._read:
                return self._read[key]
        found = None
        if kept.bytes <= LARGEST:
            try:
                with opened(kept.path, ("PNG", "JPEG", "WEBP")) as picture:
                    found = settings_in(picture)
            except Exception:  # Pillow's readers raise whatever a broken file makes them raise
                found = None
        with self._lock:
            self._read[key] = found
            while len(self._read) > REMEMBERED:
                self._read.popitem(last=False)
        return found

    def describe(self, kept: Kept) -> dict[str, Any]:
        """A picture for /api/gallery: its name, address and settings without lengthy parts."""
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
        """What stands for the API key in the address of one picture, which a browser loads without
        headers. It is good until the server ends."""
        return hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()[:32]

    def opens(self, name: str, key: str) -> bool:
        return hmac.compare_digest(self.key(name), key)

    def _kept(self, path: Path) -> Kept:
        facts = path.stat()
        return Kept(path.name, path, facts.st_size, facts.st_mtime)
