"""Writing a directory so that it appears only when it is complete."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlx_starflow.bundle.staging import OLD, alone, clear_up, partial_name, work_directory
from mlx_starflow.config import COMPONENTS
from mlx_starflow.errors import ConfigError, StarflowError, UsageError
from mlx_starflow.files.json import read_json
from mlx_starflow.files.regular import is_regular

# Files that a bundle and its components may have.
_LICENCE = r"(?:LICEN[CS]E|NOTICE|ACKNOWLEDG).*"
_TOP = re.compile(rf"config\.json|vocabulary\.json|MODEL_CARD\.md|README\.md|{_LICENCE}", re.I)
_INNER = re.compile(
    r"config\.json|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|SHA256SUMS"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|spiece\.model|tokenizer\.model"
)
_RESERVE = 16 << 20  # bytes that are left free on the disk


def check_target(target: Path, overwrite: bool) -> None:
    """Check that the target may be written: it must not exist, or be empty, or, with ``overwrite``,
    have nothing but a bundle. Errors: UsageError.

    Waits while another conversion puts its own target into the same directory.
    """
    target = Path(os.path.abspath(target))  # "." has no name and no sibling
    try:
        with alone(target.parent):
            _check_target(target, overwrite)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        _check_target(target, overwrite)  # a parent that cannot be locked


def _check_target(target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target) or _is_empty(target):
        return
    if not overwrite:
        raise UsageError(f"{target} exists. Choose another --output, or pass --overwrite.")
    if target.is_symlink() or not target.is_dir():
        raise UsageError(
            f"{target} is not a directory; --overwrite replaces only converted models."
        )
    foreign = _foreign(target)
    if foreign is not None:
        raise UsageError(
            f"{target} has other files than those of a converted model ({foreign}), so --overwrite "
            "does not replace it. Choose another --output."
        )


def _is_empty(target: Path) -> bool:
    return target.is_dir() and not target.is_symlink() and not any(target.iterdir())


def _foreign(directory: Path) -> str | None:
    """A file in a directory that does not belong to a converted model, or another reason why it is
    none; None if it is one."""
    try:
        config = read_json(directory / "config.json")
    except (OSError, ConfigError):
        return "config.json is missing or not JSON"
    if not isinstance(config, dict) or "format_version" not in config:
        return "config.json is not that of a bundle"
    for root, folders, names in os.walk(directory):
        inner = os.path.relpath(root, directory)
        allowed = _TOP if inner == "." else _INNER
        for name in names:
            if not allowed.fullmatch(name) or not is_regular(os.path.join(root, name)):
                return os.path.normpath(os.path.join(inner, name))
        for name in folders:
            path = os.path.join(root, name)
            if inner != "." or name not in COMPONENTS or os.path.islink(path):
                return os.path.normpath(os.path.join(inner, name))
    return None


def check_space(target: Path, needed: int) -> None:
    """Raise a StarflowError if the disk of ``target`` does not have ``needed`` bytes free."""
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free - _RESERVE
    if needed > free:
        raise StarflowError(
            f"{target} needs {needed / 1e9:.1f} GB, but only {max(free, 0) / 1e9:.1f} GB are free. "
            "Free some space, choose another disk, or convert with --quantize or --dtype bfloat16."
        )


@contextmanager
def staged_directory(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """A working directory beside ``target`` that becomes ``target`` at the end of the block.

    After an error, the working directory is removed and the target is unchanged. Leftovers of a
    killed process are removed by the next one. Errors: UsageError; ConfigError if the parent
    directory cannot be written.
    """
    target = Path(os.path.abspath(target))  # "." has no name and no sibling
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.parent):
            clear_up(target)
            _check_target(target, overwrite)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}.") from error
    with ExitStack() as stack:
        try:
            work = stack.enter_context(work_directory(target))
        except OSError as error:
            raise ConfigError(f"{target} cannot be written: {error.strerror}.") from error
        yield work
        _sync(work)
        with alone(target.parent):  # several conversions may end at once
            _check_target(target, overwrite)
            _put_in_place(work, target)


def _sync(directory: Path) -> None:
    """Sync all files and directories in a directory to disk."""
    for root, _, names in os.walk(directory):
        for path in (*(os.path.join(root, n) for n in names), root):
            _fsync(path)


def _fsync(path: str | Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _put_in_place(work: Path, target: Path) -> None:
    old = None
    if target.exists():
        # A rename cannot replace a directory that is not empty, so the old one is moved first.
        old = partial_name(target, "old")
        old.mkdir()
        os.rename(target, old / OLD)
    try:
        os.rename(work, target)
    except OSError:
        if old is not None:
            os.rename(old / OLD, target)
        raise
    finally:
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    _fsync(target.parent)
