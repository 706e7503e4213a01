"""Frozen dataclasses read from JSON objects; values are checked against the annotations.

Supported annotations: bool, int, float, str, tuple[X, ...], dict[str, X], X | None and other
subclasses of ``Record``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any, ClassVar, TypeVar

from ..errors import ConfigError
from .fields import MAX_ITEMS, MAX_TEXT, MAX_WHOLE, is_number, is_text, is_whole, shown

R = TypeVar("R", bound="Record")


class Record:
    """Base class of a frozen dataclass with a JSON form: ``to_dict`` writes what ``from_dict``
    reads.

    ``_limits``: field name -> smallest and largest value; for a list, of each number in it.
    """

    _limits: ClassVar[dict[str, tuple[float, float]]] = {}

    @classmethod
    def from_dict(cls: type[R], data: Any, where: str = "config.json") -> R:
        """The dataclass from a parsed JSON object. ``where`` names the file in messages. Errors:
        ConfigError naming a key that is unknown, missing or has a wrong value."""
        if not isinstance(data, dict):
            raise ConfigError(f"{where}: expected an object of settings, found {shown(data)}.")
        fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = next((key for key in data if key not in fields), None)
        if unknown is not None:
            raise ConfigError(
                f"{where}: unknown key {shown(unknown)}. Known keys: {', '.join(fields)}. "
                "Was this bundle written by a newer version?"
            )
        hints = _hints(cls)  # type: ignore[arg-type]
        values = {key: _typed(value, hints[key], where, key) for key, value in data.items()}
        for name, f in fields.items():
            required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if required and name not in values:
                raise ConfigError(f"{where}: key {name!r} is missing.")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary that JSON can hold (tuples are written as lists)."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    def _check_limits(self) -> None:
        """Raise a ConfigError for a number outside ``_limits``. Call it in ``__post_init__``."""
        for name, (low, high) in self._limits.items():
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            for number in numbers:
                if not is_number(number, low, high):
                    raise ConfigError(
                        f"{name} is {shown(number)}; expected a number from {low:g} to {high:g}."
                    )


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _typed(value: Any, hint: Any, where: str, key: str) -> Any:
    """The value converted to its annotated type. Errors: ConfigError."""
    if isinstance(hint, types.UnionType):
        options = [o for o in typing.get_args(hint) if o is not type(None)]
        if value is None and len(options) < len(typing.get_args(hint)):
            return None
        hint = options[0]
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(value, f"{where}: {key}")
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
            raise _wrong(value, where, key, "a list")
        inner = typing.get_args(hint)[0]
        return tuple(_typed(v, inner, where, f"{key}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(value, where, key, "an object")
        inner = typing.get_args(hint)[1]
        return {k: _typed(v, inner, where, f"{key}[{shown(k)}]") for k, v in value.items()}
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and is_whole(value, -MAX_WHOLE, MAX_WHOLE):
        return int(value)
    if hint is float and is_number(value):
        return float(value)
    if hint is str and is_text(value, MAX_TEXT):
        return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number"}
    raise _wrong(value, where, key, kinds.get(hint, f"a text of at most {MAX_TEXT} characters"))


def _wrong(value: Any, where: str, key: str, expected: str) -> ConfigError:
    return ConfigError(f"{where}: {key} is {shown(value)}; expected {expected}.")
