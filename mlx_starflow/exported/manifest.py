"""``export.json``: what an export holds, and the checks before anything of it is run.

MLX reads a .mlxfn file of any version and of any content, and may end the process on a damaged one.
Hence version, device and checksums are compared first.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..device.machine import mlx_version
from ..errors import ConfigError, ModelNotFoundError
from ..files.fields import Fields
from ..files.json import JSONError, parse_object
from ..files.regular import open_regular, read_regular

FILE, FORMAT, FORMAT_VERSION = "export.json", "mlx-starflow export", 1
MAX_BYTES = 16 << 20
_CHUNK = 4 << 20
_LAST = '\n  "fingerprint": "'
AGAIN = "Export the model again."


def write_manifest(directory: Path, data: dict[str, Any]) -> str:
    """Write export.json, whose last key is a hash of everything before it. Returns the hash."""
    text = json.dumps(data, indent=2, ensure_ascii=False).removesuffix("\n}") + ","
    found = hashlib.sha256(text.encode()).hexdigest()
    (directory / FILE).write_text(f'{text}{_LAST}{found}"\n}}\n', encoding="utf-8")
    return found


def read_manifest(directory: Path) -> dict[str, Any]:
    """The content of export.json, after all checks.

    Errors: ModelNotFoundError if there is none; ConfigError for another format, an edited file,
    another version of MLX, another kind of device, and for files that are missing, truncated or
    edited.
    """
    path = directory / FILE
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8")
        data = parse_object(text, MAX_BYTES)
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"{path} is missing. Make an export: mlx-starflow export --output {directory}"
        ) from None
    except (OSError, UnicodeDecodeError, JSONError) as error:
        raise ConfigError(f"{path} cannot be read ({str(error)[:200]}). {AGAIN}") from None
    fields = Fields(data, str(path))
    if data.get("format") != FORMAT:
        raise ConfigError(f"{path} is not an export of mlx-starflow.")
    version = fields.whole("format_version")
    if version != FORMAT_VERSION:
        raise ConfigError(f"{path}: its format has version {version}; expected {FORMAT_VERSION}.")
    before, _, after = text.rpartition(_LAST)
    if hashlib.sha256(before.encode()).hexdigest() != after[:64]:
        raise ConfigError(f"{path} was changed after it was written: its fingerprint is of other "
                          f"content. {AGAIN}")  # fmt: skip
    made, here = fields.text("mlx_version"), mlx_version()
    if made != here:
        raise ConfigError(
            f"{path}: made with MLX {made}, but this program runs MLX {here}, and the format of "
            f"functions belongs to one version. {AGAIN}"
        )
    device, own = fields.text("device", one_of=("cpu", "gpu")), mx.default_device().type.name
    if device != own:
        raise ConfigError(
            f"{path}: made for the {device.upper()}, but this program runs on the {own.upper()}. "
            f"{AGAIN}"
        )
    files = fields.fields("files")
    _check_files(directory, files)
    for name in _files_of_functions(fields):
        if name not in files:  # its checksum was not compared
            raise ConfigError(f"{path}: the file {name!r:.80} of a function is not among 'files'.")
    return data


def _files_of_functions(fields: Fields) -> set[str]:
    """The files that functions are in. Errors: ConfigError for malformed entries."""
    functions = fields.fields("functions")
    return {functions.fields(name).text("file") for name in functions.data}


def check_sum(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        for piece in iter(partial(file.read, _CHUNK), b""):
            digest.update(piece)
    return digest.hexdigest()


def _check_files(directory: Path, files: Fields) -> None:
    for name in files.data:
        entry, path = files.fields(name), directory / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"{directory / FILE}: {name!r:.80} is outside of the export.")
        try:
            size = path.stat().st_size
            if size != entry.whole("bytes"):
                raise ConfigError(
                    f"{path} has {size} bytes instead of {entry.whole('bytes')}: it is incomplete "
                    f"or was changed. {AGAIN}"
                )
            found = check_sum(path)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"{path} cannot be read ({reason}). {AGAIN}") from None
        if found != entry.text("sha256"):
            raise ConfigError(f"{path} was changed: its checksum is another one. {AGAIN}")
