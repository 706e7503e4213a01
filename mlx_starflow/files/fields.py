"""Typed access to the values of an untrusted JSON object; errors name the key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ..errors import ConfigError, StarflowError
from .json import kind_of

REQUIRED: Any = object()  # as a default: the key must be there
MAX_TEXT = 20_000  # characters
MAX_ITEMS = 100_000  # of a list
MAX_WHOLE = 1 << 53  # larger whole numbers are not exact in float64, which many JSON readers use

T = TypeVar("T")


class Fields:
    """The values of a JSON object, by key, type and range.

    Every getter takes a key and a default, which is returned if the key is absent or null. Without
    a default the key is required. A value of the wrong type or range, or a missing required key,
    raises ``error`` with a message that names ``where`` and the key.
    """

    def __init__(
        self, data: Any, where: str, error: type[StarflowError] = ConfigError, inner: str = ""
    ) -> None:
        """data: the parsed value. where: the file, for messages. error: the class to raise.
        inner: the path of keys under which ``data`` was found in the file, for messages."""
        self.where, self.error, self._inner = where, error, inner
        if not isinstance(data, dict):
            name = f"{inner} is {kind_of(data)}" if inner else f"found {kind_of(data)}"
            raise error(f"{where}: {name}; expected an object of settings.")
        self.data: dict[str, Any] = data

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def only(self, known: Iterable[str]) -> None:
        """Raise an error if there is a key that is not among the known ones."""
        known = list(known)
        unknown = next((key for key in self.data if key not in known), None)
        if unknown is not None:
            raise self.error(
                f"{self.where}: unknown key {shown(unknown)}"
                f"{f' in {self._inner}' if self._inner else ''}. Known keys: {', '.join(known)}."
            )

    def text(
        self,
        key: str,
        default: T = REQUIRED,
        most: int = MAX_TEXT,
        one_of: Sequence[str] | None = None,
    ) -> str | T:
        """A string of at most ``most`` characters, without NUL characters and surrogates; with
        ``one_of``, one of these."""
        said = f"one of {', '.join(map(repr, one_of))}" if one_of else f"at most {most} characters"
        check = self._one_of(one_of) if one_of else lambda v: is_text(v, most)
        return self._get(key, default, check, said if one_of else f"a text of {said}")

    def whole(
        self, key: str, default: T = REQUIRED, low: int = 0, high: int = MAX_WHOLE
    ) -> int | T:
        """An integer from ``low`` to ``high``; 3.0 is accepted, true is not."""
        value = self._get(
            key, default, lambda v: is_whole(v, low, high), f"a whole number from {low} to {high}"
        )
        return int(value) if isinstance(value, float) else value

    def number(
        self, key: str, default: T = REQUIRED, low: float = -math.inf, high: float = math.inf
    ) -> float | T:
        """A finite number from ``low`` to ``high``."""
        value = self._get(key, default, lambda v: is_number(v, low, high), _between(low, high))
        return float(value) if isinstance(value, int) and key in self else value

    def switch(self, key: str, default: T = REQUIRED) -> bool | T:
        """A boolean."""
        return self._get(key, default, lambda v: isinstance(v, bool), "true or false")

    def texts(
        self, key: str, default: T = REQUIRED, most: int = MAX_TEXT, items: int = MAX_ITEMS
    ) -> tuple[str, ...] | T:
        """A list of at most ``items`` strings of at most ``most`` characters, as a tuple."""
        return self._list(
            key, default, items, lambda v: is_text(v, most), f"texts of at most {most} characters"
        )

    def wholes(
        self,
        key: str,
        default: T = REQUIRED,
        low: int = 0,
        high: int = MAX_WHOLE,
        items: int = MAX_ITEMS,
    ) -> tuple[int, ...] | T:
        """A list of at most ``items`` integers from ``low`` to ``high``, as a tuple."""
        value = self._list(
            key,
            default,
            items,
            lambda v: is_whole(v, low, high),
            f"whole numbers from {low} to {high}",
        )
        return tuple(map(int, value)) if key in self else value

    def fields(self, key: str, default: T = REQUIRED) -> Fields | T:
        """The object under a key, as ``Fields``."""
        value = self._get(key, default, lambda v: isinstance(v, dict), "an object of settings")
        return self._under(key, value) if key in self else value

    def many(
        self, key: str, default: T = REQUIRED, items: int = MAX_ITEMS
    ) -> tuple[Fields, ...] | T:
        """A list of at most ``items`` objects, as a tuple of ``Fields``."""
        value = self._list(key, default, items, lambda v: isinstance(v, dict), "objects")
        if key not in self:
            return value
        return tuple(self._under(f"{key}[{i}]", part) for i, part in enumerate(value))

    def refuse(self, key: str, expected: str) -> StarflowError:
        """The error for a key whose value is not what was expected; the caller raises it."""
        name = f"{self._inner}.{key}" if self._inner else key
        return self.error(
            f"{self.where}: {name} is {shown(self.data.get(key))}; expected {expected}."
        )

    def _under(self, key: str, value: Any) -> Fields:
        return Fields(value, self.where, self.error, f"{self._inner}.{key}" if self._inner else key)

    def _get(self, key: str, default: Any, check: Callable[[Any], bool], expected: str) -> Any:
        value = self.data.get(key)
        if value is None:
            if default is REQUIRED:
                name = f"{self._inner}.{key}" if self._inner else key
                raise self.error(f"{self.where}: the key {name!r} is missing.")
            return default
        if not check(value):
            raise self.refuse(key, expected)
        return value

    def _list(
        self, key: str, default: Any, items: int, check: Callable[[Any], bool], expected: str
    ) -> Any:
        value = self._get(
            key,
            default,
            lambda v: isinstance(v, list | tuple) and len(v) <= items and all(map(check, v)),
            f"a list of at most {items} {expected}",
        )
        return tuple(value) if key in self else value

    @staticmethod
    def _one_of(allowed: Sequence[str]) -> Callable[[Any], bool]:
        return lambda value: isinstance(value, str) and value in allowed


def is_text(value: Any, most: int = MAX_TEXT) -> bool:
    """Whether a value is a string of at most ``most`` characters, without NUL and surrogates."""
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def is_whole(value: Any, low: int, high: int) -> bool:
    """Whether a value is an integer from ``low`` to ``high``; 3.0 is one, true is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return low <= value <= high and value == int(value)


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether a value is a finite number from ``low`` to ``high``; true is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, int) and abs(value) > 1 << 1000:  # may be too large for a float
        return False
    return math.isfinite(value) and low <= value <= high


def shown(value: Any, most: int = 80) -> str:
    """A value as text for a message: short, on one line, in printable ASCII characters."""
    if isinstance(value, dict | list | tuple | set):
        return kind_of(value)
    if isinstance(value, int) and abs(value) >= 10**most:
        return f"a number of more than {most} digits"
    if isinstance(value, str):
        return ascii(value[:most]) + ("..." if len(value) > most else "")
    return ascii(value)[:most] if value is not None else "null"


def _between(low: float, high: float) -> str:
    if low == -math.inf and high == math.inf:
        return "a number"
    if high == math.inf:
        return f"a number of {low:g} or more"
    return f"a number from {low:g} to {high:g}"
