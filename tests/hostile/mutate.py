"""Valid JSON, text and bytes, changed at random in ways that often break programs."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 0.5, -0.0, 1e-300, 1e300, 10**12, 1 << 31, 1 << 53, 1 << 63,
    10**25, "", "x", "0", "nan", "\0", "\ud800", "\x1b[2J", "../../x", "/etc/passwd", "hub:a/b",
    "a" * 3000, "\U0001f98a", [], [0], [None], [1, 2, 3], [[[]]], [1e300], ["a", "b"], [0, 0, 0],
    {}, {"a": 1}, {"type": "x"}, {"layers": 10**6}, {"bits": 4}, {"content": 3},
]  # fmt: skip
RAW = ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "[" * 40, '"', "\\u0000", "\\ud800",
       "{", "}", "]", ",", ":", "null", "1e-400", "0x1", "'", "\t", "\xff"]  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path of everything in a JSON value."""
    found = [path]
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:20])
    else:
        return found
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def changed_json(value: Any, dice: random.Random) -> Any:
    """The value with one to three of its parts replaced, removed, doubled or added."""
    value = copy.deepcopy(value)
    for _ in range(dice.randint(1, 3)):
        path = dice.choice(places(value))
        if not path:
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        key, kind = path[-1], dice.randrange(8)
        if kind <= 3:
            parent[key] = copy.deepcopy(dice.choice(STRANGE))
        elif kind == 4:
            del parent[key]
        elif kind == 5 and isinstance(parent, dict):
            parent[dice.choice(["extra", "", "\x1b[2J", str(key) * 2])] = parent[key]
        elif kind == 5:
            parent.insert(key, copy.deepcopy(parent[key]))
        elif kind == 6 and isinstance(parent[key], int | float):
            parent[key] = parent[key] * dice.choice([-1, 0, 2, 3, 1000, 1 << 20, 0.37])
        else:
            parent[key] = dice.choice([[parent[key]], {str(key): parent[key]}, str(parent[key])])
    return value


def changed_text(text: str, dice: random.Random) -> str:
    """The text with one to four pieces put in, taken out or doubled."""
    for _ in range(dice.randint(1, 4)):
        at, kind = dice.randrange(len(text) + 1), dice.randrange(4)
        if kind == 0:
            text = text[:at] + dice.choice(RAW) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + dice.randint(1, 30) :]
        elif kind == 2:
            text = text[:at] + text[at : at + dice.randint(1, 60)] + text[at:]
        else:
            text = text[:at] + chr(dice.choice([0, 9, 10, 27, 34, 58, 91, 123, 0x202E])) + text[at:]
    return text


def dumped(value: Any, dice: random.Random) -> bytes:
    """A changed JSON value as a file, at times with the text itself changed too."""
    if dice.random() < 0.75:
        value = changed_json(value, dice)
        text = json.dumps(value)
        text = changed_text(text, dice) if dice.random() < 0.1 else text
    else:
        text = changed_text(json.dumps(value), dice)
    return text.encode("utf-8", "surrogatepass")


def changed_bytes(data: bytes, dice: random.Random) -> bytes:
    """The bytes with one to six bits, bytes, numbers or pieces changed."""
    result = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at, kind = dice.randrange(len(result) + 1), dice.randrange(7)
        if kind <= 1 and at < len(result):
            result[at] ^= 1 << dice.randrange(8)
        elif kind == 2 and at < len(result):
            result[at] = dice.randrange(256)
        elif kind == 3:
            size = dice.choice([2, 4, 8])
            number = dice.choice(
                [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40]
            )
            number &= (1 << 8 * size) - 1
            result[at : at + size] = number.to_bytes(size, dice.choice(["little", "big"]))
        elif kind == 4:
            del result[at : at + dice.randint(1, 40)]
        elif kind == 5:
            result[at:at] = result[at : at + dice.randint(1, 60)]
        else:
            del result[dice.randrange(len(result) // 2, len(result) + 1) :]
    return bytes(result)
