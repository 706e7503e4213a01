"""Copying files of a model into a new one: known names and regular files only, no links that lead
out of the model's directory."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..errors import CheckpointError
from ..files.regular import inside, is_regular, open_regular, read_regular
from . import sums, vocabulary
from .load import weight_files
from .safetensors import INDEX_NAME

MAX_FILE_BYTES = 128 << 20  # of a file that is no weight file
LICENCE_NAME = re.compile(r"(LICEN[CS]E|NOTICE|ACKNOWLEDG).*", re.IGNORECASE | re.DOTALL)
CARDS = ("MODEL_CARD.md", "README.md")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "tokenizer.model",
)


def copy_beside(path: Path, directory: Path) -> None:
    """Copy a small file, such as a licence or a tokenizer file, into a directory.

    A link may lead to a file in its own directory, or to a blob of the hub's cache that the
    directory belongs to. Other links are refused, so that a model cannot choose other files of this
    computer to be copied into a bundle. Errors: CheckpointError.
    """
    check_inside(path, path.parent)
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    (directory / path.name).write_bytes(data)


def copy_component(source: Path, component: str, target: Path) -> None:
    """Copy a component of the bundle ``source`` into the bundle ``target``: config.json, weights
    with their hashes, and tokenizer files; other files are left out. Errors: CheckpointError,
    WeightsError, ConfigError."""
    own, directory = source / component, target / component
    check_inside(own, source)
    directory.mkdir(parents=True)
    for name in ("config.json", INDEX_NAME, sums.FILE, *TOKENIZER_FILES):
        if _exists(own / name):
            copy_beside(own / name, directory)
    if is_regular(own / INDEX_NAME) or _exists(own / "model.safetensors"):
        for path in weight_files(own):
            _copy_weights(path, directory)


def copy_papers(source: Path, target: Path) -> None:
    """Copy the vocabulary, the licences and the model card of a bundle. Errors: CheckpointError."""
    for path in sorted(source.iterdir()):
        wanted = (vocabulary.FILE, *CARDS)
        if path.name in wanted or (LICENCE_NAME.fullmatch(path.name) and not path.is_dir()):
            copy_beside(path, target)


def check_inside(path: Path, directory: Path) -> None:
    """Raise a CheckpointError if a path leads outside a directory and the cache of the hub that
    the directory belongs to."""
    if not inside(path, directory) and not inside(path, _blobs(directory)):
        raise CheckpointError(
            f"{path} is a link that leads outside its directory, so it is not copied. Replace it "
            "by the file itself."
        )


def _copy_weights(path: Path, directory: Path) -> None:
    check_inside(path, path.parent)
    try:
        with open_regular(path) as source, (directory / path.name).open("xb") as file:
            shutil.copyfileobj(source, file, 4 << 20)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be copied: {error.strerror}.")


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _blobs(directory: Path) -> Path:
    """The blobs directory for a snapshot in the hub's cache; for other directories itself."""
    for parent in (directory, *directory.parents):
        if parent.parent.name == "snapshots":
            return parent.parent.parent / "blobs"
    return directory
