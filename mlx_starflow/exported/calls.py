"""The functions of an export by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..errors import UsageError

Imported = Callable[..., tuple[mx.array, ...]]


class Calls:
    """Calls functions of an export. Files are opened when they are first used. In which threads
    they compute: device/first_stream.py."""

    def __init__(self, directory: Path, functions: dict[str, Any]) -> None:
        self._directory, self._functions = directory, functions
        self._files: dict[str, Imported] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def inputs(self, name: str) -> tuple[str, ...]:
        """The names of a function's inputs."""
        return tuple(one["name"] for one in self._functions[name]["inputs"])

    def __call__(self, name: str, given: dict[str, mx.array]) -> tuple[mx.array, ...]:
        """The outputs of a function. ``given``: at least its inputs, by name. Errors: UsageError if
        the export has no such function, or an input has another shape than the function's."""
        if name not in self._functions:
            raise UsageError(f"This export has no function {name!r}; it was made for other things.")
        entry, keywords = self._functions[name], {}
        for one in entry["inputs"]:
            if one["name"] not in given:
                raise UsageError(f"{name} needs {one['name']}, which this export does not make.")
            value = given[one["name"]].astype(getattr(mx, one["dtype"]))
            if list(value.shape) != one["shape"] and "every_length" not in entry:
                raise UsageError(
                    f"{one['name']} has shape {list(value.shape)}; this export takes "
                    f"{one['shape']}. An export has fixed shapes."
                )
            keywords[f"{name}.{one['name']}"] = value
        return self._file(entry["file"])(**keywords)

    def _file(self, name: str) -> Imported:
        if name not in self._files:
            imported: Any = mx.import_function(str(self._directory / name))
            self._files[name] = imported
        return self._files[name]
