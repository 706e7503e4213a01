"""Read the YAML file of ``train``, without aliases and tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import StarflowError, UsageError
from ..files.regular import read_regular

MOST = 1 << 16  # bytes of the file
MAX_EVENTS = 2000


def read_yaml(path: Path) -> Any:
    """The object in a YAML file. Errors: UsageError if the file is missing, StarflowError if it is
    not YAML, is too large, or uses tags or aliases (which can expand without limit)."""
    try:
        text = read_regular(path, MOST).decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"--config {path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StarflowError(f"{path} cannot be read ({error}).") from None
    try:
        for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise StarflowError(f"{path}: YAML aliases are not supported here.")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise StarflowError(f"{path}: YAML tags ({tag[:80]}) are not supported here.")
            if number > MAX_EVENTS:
                raise StarflowError(f"{path} is too large for a file of options.")
        return yaml.safe_load(text) or {}
    except StarflowError:
        raise
    except Exception as error:  # values that do not fit their type raise many kinds of errors
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StarflowError(f"{path}: this is not YAML ({reason}).") from None
