"""Parsing of untrusted JSON, with limits on bytes, depth, number of values and digits.

NaN, infinity and repeated keys are errors. ``Fields`` (fields.py) gives typed access to the
values.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ConfigError, StarflowError
from .regular import read_regular

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_VALUES = 500_000
MAX_DIGITS = 60  # characters of a number

# A string. Also matches one without a closing quote, so that the search stays linear in time.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
# Everything up to the next bracket outside of a string, or to the end.
_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))*+([\[\]{}]|\Z)', re.DOTALL)


class JSONError(ValueError):
    """The text is not JSON or exceeds a limit. The message does not name the file."""


def read_json(
    path: str | Path,
    most_bytes: int = MAX_BYTES,
    error: type[StarflowError] = ConfigError,
    most_values: int = MAX_VALUES,
) -> Any:
    """Parse a JSON file. Errors: FileNotFoundError; else ``error`` with a message that names the
    file."""
    try:
        return parse_json(read_regular(path, most_bytes), most_bytes, most_values)
    except FileNotFoundError:
        raise
    except JSONError as problem:
        raise error(f"{path} is not valid JSON ({problem}).") from None
    except (OSError, ValueError) as problem:  # ValueError: a path with a zero byte
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path} cannot be read: {reason}.") from None


def parse_json(
    text: bytes | str, most_bytes: int = MAX_BYTES, most_values: int = MAX_VALUES
) -> Any:
    """Parse a JSON text. Errors: JSONError."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    if len(data) > most_bytes:
        raise JSONError(f"it has {len(data)} bytes, more than {most_bytes}")
    _check_size(data, most_values)
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            parse_int=_whole,
            parse_float=_number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except JSONError:
        raise
    except UnicodeDecodeError:
        raise JSONError("it is not UTF-8 text") from None
    except RecursionError:
        raise JSONError("it is nested too deep") from None
    except ValueError as problem:
        raise JSONError(str(problem)[:200]) from None


def parse_object(
    text: bytes | str, most_bytes: int = MAX_BYTES, most_values: int = MAX_VALUES
) -> dict[str, Any]:
    """Parse a JSON text that must be an object. Errors: JSONError."""
    value = parse_json(text, most_bytes, most_values)
    if not isinstance(value, dict):
        raise JSONError(f"it is {kind_of(value)} instead of an object")
    return value


def kind_of(value: Any) -> str:
    """The kind of a JSON value, for messages: "a list", "a number", ..."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", dict: "an object", list: "a list", tuple: "a list",
             str: "a text", int: "a number", float: "a number"}  # fmt: skip
    return kinds.get(type(value), f"a {type(value).__name__}")


def _check_size(data: bytes, most_values: int) -> None:
    """Check depth and number of values before anything is built. Errors: JSONError."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most_values:
        # Count again without the commas and brackets inside strings.
        data = _STRING.sub(b"", data)
        if data.count(b",") + data.count(b"[") + data.count(b"{") > most_values:
            raise JSONError(f"it has more than {most_values} values")
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKET.finditer(data):
        if match[1]:
            depth += 1 if match[1] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise JSONError(f"it is nested deeper than {MAX_DEPTH}")


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise JSONError(f"it has a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    if len(text) > MAX_DIGITS:
        raise JSONError(f"it has a number of {len(text)} digits")
    value = float(text)
    if not math.isfinite(value):
        raise JSONError(f"the number {text} is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise JSONError(f"{name} is not a number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JSONError(f"the key {key[:80]!a} appears twice")
            seen.add(key)
    return found
