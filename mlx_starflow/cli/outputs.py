"""Where pictures go and what they are called."""

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
ROOM = 48  # bytes of a name that _prompt_N_seed_S, _1 and the like take


def check_output(output: Path) -> None:
    """Refuse, before any work, a place that cannot be written or a suffix that is not known."""
    if output.is_dir():
        raise UsageError(f"{output} is a directory; name a file in it, such as {output}/image.png.")
    try:
        format_of(output)
    except ImageError as error:
        raise UsageError(str(error)) from None
    check_file(output)


def check_file(path: Path) -> None:
    """Refuse, before any work, a file whose directory cannot be written or whose name is too long
    for it. Room is left in the name for what is added to it."""
    existing = check_directory(path.parent)
    most = os.pathconf(existing, "PC_NAME_MAX")
    if len(os.fsencode(path.name)) + ROOM > most:
        raise UsageError(
            f"The name {path.name[:40]}... is too long; this disk takes at most {most} bytes, and "
            f"{ROOM} of them are needed for a number and for the file while it is written."
        )


def check_directory(directory: Path) -> Path:
    """Refuse a directory that cannot be written or, where it is missing, made. Returns the part of
    its path that exists."""
    existing = directory
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"{directory} cannot be a directory: {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ImageError(f"{existing} cannot be written (permission denied); choose another place.")
    try:  # a disk may be read-only for reasons that permissions do not show
        with tempfile.TemporaryFile(dir=existing):
            return existing
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImageError(
            f"{existing} cannot be written ({reason}); choose another place."
        ) from None


def name(output: Path, seed: int, prompt_number: int | None, several: bool) -> Path:
    """The path of one picture: ``output`` itself if it is the only one, else stem_seed_S.png,
    with the number of the prompt where there are several. ``{seed}`` in the name is filled in."""
    if "{seed}" in output.name:
        return output.with_name(output.name.replace("{seed}", str(seed)))
    if not several:
        return output
    prompt = f"_prompt_{prompt_number}" if prompt_number is not None else ""
    return output.with_name(f"{output.stem}{prompt}_seed_{seed}{output.suffix}")


def save_arrays(path: Path, settings: dict[str, Any], **arrays: mx.array) -> Path:
    """Write arrays as .safetensors (all of them, with the settings) or .npy (the first), never
    over a file."""
    if path.suffix != ".npy":
        return write_noise(path, settings, **arrays)
    content = io.BytesIO()  # whole in memory first: not every failed write is reported
    np.save(content, np.array(next(iter(arrays.values()))))
    return write_whole(path, lambda file: file.write(content.getbuffer()), overwrite=False)


def check_array_path(path: Path, flag: str) -> None:
    if path.suffix not in (".safetensors", ".npy"):
        raise UsageError(f"{flag} {path}: expected a name ending in .safetensors or .npy.")
