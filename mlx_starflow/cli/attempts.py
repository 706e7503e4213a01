"""Work on one picture or file after another, which goes on after one that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ImageError, StarflowError
from ..files.counted import counted
from .console import Console

T = TypeVar("T")


class Attempts:
    """Work on one picture after another. A picture that cannot be read is a warning and does not
    stop the others; a single one is an error at once."""

    def __init__(
        self,
        paths: list[Path],
        console: Console,
        done: str = "read",
        what: str = "picture",
        error: type[StarflowError] = ImageError,
    ) -> None:
        """``done``, ``what``: what could not be done to which kind of file, for the message.
        ``error``: raised for a file that cannot be read."""
        self._paths, self._console, self._done = paths, console, done
        self._what, self._error = what, error
        self._failed: list[dict[str, str]] = []

    def each(self, work: Callable[[Path], T], phase: str | None = None) -> Iterator[T]:
        """What ``work`` returns for each picture that can be read. ``phase``: for the bar."""
        total = len(self._paths)
        for number, path in enumerate(self._paths):
            if phase is not None:
                self._console.draw(phase, f"{number}/{total} {self._what}s", number / total, None)
            try:
                result = work(path)
            except self._error as error:
                if total == 1:
                    raise
                self._failed.append({"path": str(path), "error": str(error)})
                self._console.say(f"Warning: {error}")
                continue
            finally:
                self._console.clear()
            yield result

    def about(self) -> dict[str, Any]:
        """For ``--json``: the pictures that could not be read, each with the reason."""
        return {"failed": self._failed} if self._failed else {}

    def finish(self) -> None:
        """Raise a StarflowError that says how many pictures failed, if any."""
        if self._failed:
            raise StarflowError(
                f"{len(self._failed)} of {counted(len(self._paths), self._what)} could not be "
                f"{self._done}."
            )
