"""Values of a JSON object from outside, by name and type: checked before anything uses them."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError

LONGEST_TEXT = 20_000  # characters of a prompt or a name
LONGEST_LIST = 4096  # values of a list such as the windows


class Reader:
    """Values of a JSON object by name and type."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, Mapping):
            raise UsageError(f"{where}: expected an object of settings, found {shown(data)}.")
        self._data, self.where = data, where

    def __contains__(self, name: str) -> bool:
        return self._data.get(name) is not None

    def names(self) -> list[str]:
        return [str(name)[:60] for name in self._data]

    def __call__(self, name: str, kind: Any, longest: int = LONGEST_TEXT) -> Any:
        """The value under ``name``, which has to be of a type such as ``float | None``; a missing
        one is None where that is allowed. Errors: UsageError naming the place, key and value."""
        value = self._data.get(name)
        allowed = _alternatives(kind)
        if value is None:
            if type(None) in allowed:
                return None
            raise UsageError(f"{self.where}: {name!r} is missing.")
        if isinstance(value, str) and len(value) > longest:
            raise UsageError(
                f"{self.where}: {name!r} has {len(value):,} characters; at most {longest:,} are "
                "read."
            )
        for one in allowed:
            fitting = _as(value, one)
            if fitting is not None:
                return fitting
        names = " or ".join(_NAMES.get(one, "list") for one in allowed if one is not type(None))
        raise UsageError(f"{self.where}: {name!r} is {shown(value)}; expected {names}.")


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "an object",
    tuple[int, ...]: "a list of whole numbers",
    tuple[str, ...]: "a list of texts",
}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return typing.get_args(kind)
    return (kind,)


def _as(value: Any, kind: Any) -> Any:
    """``value`` as ``kind``, or None where it is something else or out of range."""
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value if whole and abs(value) < 2**53 else None
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        small = abs(value) < 1e30 if isinstance(value, int) else math.isfinite(value)
        return float(value) if small else None
    if kind is str:
        return value if isinstance(value, str) else None
    if kind is dict:
        return value if isinstance(value, dict) else None
    inner = typing.get_args(kind)
    if not inner or not isinstance(value, list) or len(value) > LONGEST_LIST:
        return None
    values = tuple(_as(v, inner[0]) for v in value)
    long = any(isinstance(v, str) and len(v) > LONGEST_TEXT for v in values)
    return None if long or None in values else values


def shown(value: Any) -> str:
    """A value from outside for a message: short, and without control characters."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__}"
    try:
        text = repr(value)
    except ValueError:  # Python prints no number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
