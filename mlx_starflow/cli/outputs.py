"""Names and checks of output files."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import ImageError, UsageError
from ..generation.noise_file import write_noise
from ..pictures.arrays import format_of, write_whole

DEFAULT = "image.png"
ROOM = 48  # bytes of a file name that are reserved for _prompt_N_seed_S, _1 and the like


def check_output(output: Path) -> None:
    """Check, before any work, that a picture can be written to this path. Errors: UsageError,
    ImageError."""
    if output.is_dir():
        raise UsageError(
            f"{output} is a directory; expected a file name, such as {output}/image.png."
        )
    try:
        format_of(output)
    except ImageError as error:
        raise UsageError(str(error)) from None
    check_file(output)


def check_file(path: Path) -> None:
    """Check, before any work, that the directory of a file can be written and that the name is not
    too long, with ROOM for additions. Errors: UsageError, ImageError."""
    existing = check_directory(path.parent)
    most = os.pathconf(existing, "PC_NAME_MAX")
    if len(os.fsencode(path.name)) + ROOM > most:
        raise UsageError(
            f"The name {path.name[:40]}... is too long; this disk allows at most {most} bytes, of "
            f"which {ROOM} are reserved for a number and a temporary name."
        )


def check_directory(directory: Path) -> Path:
    """Check that a directory can be written, or made if it is missing. Returns the part of its path
    that exists. Errors: UsageError, ImageError."""
    existing = directory
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"{directory} cannot be a directory: {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ImageError(
            f"{existing} cannot be written (permission denied); choose another directory."
        )
    try:  # the disk may be read-only although the permissions allow writing
        with tempfile.TemporaryFile(dir=existing):
            return existing
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImageError(
            f"{existing} cannot be written ({reason}); choose another directory."
        ) from None


def name(output: Path, seed: int, prompt_number: int | None, several: bool) -> Path:
    """The path of one picture: ``output`` if it is the only one, else stem_seed_S.png, or
    stem_prompt_N_seed_S.png if there are several prompts. ``{seed}`` in the name is replaced."""
    if "{seed}" in output.name:
        return output.with_name(output.name.replace("{seed}", str(seed)))
    if not several:
        return output
    prompt = f"_prompt_{prompt_number}" if prompt_number is not None else ""
    return output.with_name(f"{output.stem}{prompt}_seed_{seed}{output.suffix}")


def save_arrays(path: Path, settings: dict[str, Any], **arrays: mx.array) -> Path:
    """Write all arrays and the settings as .safetensors, or the first array as .npy. Returns the
    path that was written: an existing file is kept, and a free name is taken."""
    if path.suffix != ".npy":
        return write_noise(path, settings, **arrays)
    content = io.BytesIO()  # written to memory first, since not all write errors are reported
    np.save(content, np.array(next(iter(arrays.values()))))
    return write_whole(path, lambda file: file.write(content.getbuffer()), overwrite=False)


def check_array_path(path: Path, flag: str) -> None:
    """Raise a UsageError unless the path ends in .safetensors or .npy. ``flag``: for messages."""
    if path.suffix not in (".safetensors", ".npy"):
        raise UsageError(f"{flag} {path}: expected a name ending in .safetensors or .npy.")
