"""Typed access to the fields of a request, JSON or form; errors name the field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..files.json import JSONError, parse_object
from .errors import RequestError

MOST_VALUES = 10_000  # of a JSON body


class Fields:
    """The values of a request, by name. null and "" count as absent, and the default is then
    returned. Unknown names are ignored. Errors of all methods: RequestError 400."""

    def __init__(self, values: Mapping[str, Any], form: bool = False) -> None:
        """``form``: the values are texts of a form, which are parsed as the requested type."""
        self._values, self._form = values, form

    def given(self, name: str) -> bool:
        """Whether a field has a value."""
        return self._values.get(name) not in (None, "")

    def text(self, name: str, longest: int, default: str | None = None) -> str | None:
        """A text of at most ``longest`` characters; the only control characters are tabs and line
        ends."""
        if not self.given(name):
            return default
        value = self._values[name]
        if not isinstance(value, str):
            raise wrong(name, value, "a text")
        if len(value) > longest:
            raise wrong(name, f"{len(value)} characters long", f"at most {longest}", quote=False)
        if any(ord(c) < 32 and c not in "\t\r\n" or 0xD800 <= ord(c) < 0xE000 for c in value):
            raise wrong(name, value, "a text without control characters")
        return value

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int | None:
        """An integer from ``low`` to ``high``; 3.0 counts as 3."""
        if not self.given(name):
            return default
        value = self._values[name]
        if self._form and isinstance(value, str):
            value = _int(value)
        elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise wrong(name, self._values[name], f"a whole number from {low} to {high}")
        return value

    def number(
        self, name: str, low: float, high: float, default: float | None = None
    ) -> float | None:
        """A finite number from ``low`` to ``high``."""
        if not self.given(name):
            return default
        value = self._values[name]
        if self._form and isinstance(value, str):
            value = _float(value)
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not low <= value <= high:  # false for NaN
            raise wrong(name, self._values[name], f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean; in a form "true", "1", "false" or "0"."""
        if not self.given(name):
            return default
        value = self._values[name]
        if self._form and isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False}.get(value.lower())
        if not isinstance(value, bool):
            raise wrong(name, self._values[name], "true or false")
        return value

    def choice(self, name: str, among: Sequence[str], default: str) -> str:
        """One of the texts in ``among``."""
        if not self.given(name):
            return default
        value = self._values[name]
        if value not in among:
            raise wrong(name, value, f"one of {', '.join(among)}")
        return str(value)

    def texts(self, name: str, longest: int, most: int) -> list[str]:
        """A list of at most ``most`` texts; a single text counts as a list of one."""
        if name not in self._values or self._values[name] is None:
            return []
        value = self._values[name]
        rows = value if isinstance(value, list) else [value]
        if len(rows) > most:
            raise wrong(name, f"{len(rows)} texts", f"at most {most}", quote=False)
        one = [Fields({name: row}, self._form).text(name, longest, "") for row in rows]
        return [text or "" for text in one]


def wrong(name: str, value: Any, expected: str, quote: bool = True) -> RequestError:
    """The error (status 400) for a field with a wrong value; the caller raises it."""
    told = shown(value) if quote else value
    return RequestError(400, f"{name} is {told}; expected {expected}.", name, "invalid_value")


def shown(value: Any) -> str:
    """A value for a message: short, in printable ASCII."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'object'}"
    try:
        text = ascii(value)
    except ValueError:  # Python prints no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def json_object(raw: bytes, most_bytes: int) -> dict[str, Any]:
    """Parse a body that must be a JSON object. Errors: RequestError 400."""
    try:
        return parse_object(raw, most_bytes, MOST_VALUES)
    except JSONError as error:
        raise RequestError(
            400, f"The body is not a JSON object: {error}.", code="invalid_json"
        ) from None


def _int(text: str) -> int | None:
    try:
        return int(text) if len(text) <= 20 else None
    except ValueError:
        return None


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
