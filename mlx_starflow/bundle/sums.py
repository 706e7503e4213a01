"""SHA256SUMS of a component: the hashes of its weight files, as ``sha256sum`` writes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ..errors import WeightsError
from ..files.regular import read_regular

FILE = "SHA256SUMS"
MAX_BYTES = 1 << 20
CHUNK = 4 << 20
_LINE = re.compile(r"([0-9a-f]{64}) [ *](\w[\w.-]{0,200})")


def write_sums(directory: Path, names: Iterable[str]) -> None:
    """Hash the named files of a directory and write SHA256SUMS into it."""
    lines = []
    for name in names:
        with open(directory / name, "rb") as file:
            digest = hashlib.sha256()
            for piece in iter(partial(file.read, CHUNK), b""):
                digest.update(piece)
        lines.append(f"{digest.hexdigest()}  {name}\n")
    (directory / FILE).write_text("".join(lines), encoding="utf-8")


def read_sums(directory: Path) -> dict[str, str]:
    """File name -> SHA-256 in hex, from SHA256SUMS; {} if there is none. Errors: WeightsError."""
    path = directory / FILE
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read ({error}).") from None
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise WeightsError(f"{path} is not a list of SHA-256 hashes. Convert the model again.")
        found[match[2]] = match[1]
    return found
