"""An interpreter for the few pickle instructions that a state dict needs.

Nothing is imported and nothing is called: the names in a pickle are only compared with a short
list of allowed ones, and others are refused. The number of instructions is limited, and no
instruction makes more than one small object, so time and memory are limited too.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_starflow.errors import CheckpointError

MAX_PICKLE_BYTES = 64 << 20
MAX_INSTRUCTIONS = 500_000
MAX_TEXT = 4096  # characters of a name; longer strings are refused
_MARK = object()


@dataclass(frozen=True)
class Name:
    """A module and a name in it, as texts from the pickle. They are never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class StateDict(dict[Any, Any]):
    """The result of OrderedDict() in a pickle. Attributes may be attached to this type only."""


Call = Callable[[Name, tuple[Any, ...]], Any]
Fetch = Callable[[Any], Any]


def read_pickle(data: bytes, where: str, call: Call, fetch: Fetch) -> Any:
    """The object in a pickle: dicts, lists, tuples, numbers, strings, and results of ``call`` and
    ``fetch``.

    call(name, arguments): returns the result of a call in the pickle. fetch(id): returns the object
    for a persistent id. Both raise CheckpointError for what is not allowed. where: the file, for
    messages. Errors: CheckpointError.
    """
    check_size(len(data), where)
    return _Machine(data, where, call, fetch).run()


def check_size(size: int, where: str) -> None:
    """Raise a CheckpointError if a pickle is too large. Call it before reading the pickle."""
    if size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{where}: the pickle has {size} bytes; that of a state dict has less than "
            f"{MAX_PICKLE_BYTES}. This file is not a plain state dict."
        )


def described(value: Any) -> str:
    """An object of a pickle as text for a message. Containers are only named: with shared parts,
    their text could be endless."""
    if isinstance(value, Name | str):
        return ascii(str(value)[:200])
    if isinstance(value, int | float | None):
        return str(value)[:80]
    return f"a {type(value).__name__}"


class _Machine:
    """The stack machine of the pickle format."""

    def __init__(self, data: bytes, where: str, call: Call, fetch: Fetch) -> None:
        self.data, self.at, self.where = data, 0, where
        self.call, self.fetch = call, fetch
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def refuse(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.where}: {why}. Only plain state dicts (tensors by name) are read; nothing in "
            "this file was run."
        )

    def run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                result = self.pop()
                if self.stack:
                    raise self.refuse("the pickle ends with objects left on its stack")
                return result
            step = _STEPS.get(code)
            if step is None:
                raise self.unknown(code)
            step(self)
        raise self.refuse(f"the pickle has more than {MAX_INSTRUCTIONS} instructions")

    def unknown(self, code: int) -> CheckpointError:
        known = pickletools.code2op.get(chr(code))  # type: ignore[attr-defined]
        instruction = known.name if known else f"0x{code:02x}"
        named = next((str(v)[:200] for v in reversed(self.stack) if isinstance(v, Name)), None)
        about = f" (for {named!r})" if named else ""
        return self.refuse(f"the pickle instruction {instruction}{about} is not allowed")

    # Reading

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise self.refuse(f"the pickle is cut off at byte {len(self.data)}")
        piece, self.at = self.data[self.at : end], end
        return piece

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + MAX_TEXT)
        if end < 0:
            raise self.refuse("a name in the pickle has no end")
        text = self.take(end - self.at)
        self.at += 1
        return self.decode(text)

    def text(self, length: int) -> str:
        if length > MAX_TEXT:
            raise self.refuse(f"a string of {length} bytes is too long for a tensor's name")
        return self.decode(self.take(length))

    def decode(self, text: bytes) -> str:
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse("a string in the pickle is not UTF-8") from None

    # The stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise self.refuse("the pickle takes from an empty stack")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        value = self.pop()
        if not isinstance(value, kind):
            raise self.refuse(
                f"the pickle changes a {type(value).__name__} instead of a {kind.__name__}"
            )
        self.stack.append(value)
        return value

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise self.refuse("the pickle refers to a mark that was never set")

    def several(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    # Instructions

    def remember(self, key: int) -> None:
        value = self.pop()
        self.stack.append(value)
        self.memo[key] = value

    def recall(self, key: int) -> None:
        if key not in self.memo:
            raise self.refuse(f"the pickle recalls entry {key}, which it never stored")
        self.push(self.memo[key])

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise self.refuse("the pickle sets a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int, float, type(None))):
                raise self.refuse(f"the pickle uses a {type(key).__name__} as a key")
            if key in target:
                raise self.refuse(f"the key {str(key)[:80]!r} appears twice in one dictionary")
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def key(self) -> int:
        text = self.line()
        if not text.isdecimal() or len(text) > 9:
            raise self.refuse("the pickle stores under a key that is not a number")
        return int(text)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise self.refuse("the pickle calls something that is not a name")
        self.push(self.call(function, arguments))

    def build(self) -> None:
        state = self.pop()
        # PyTorch attaches module versions to a state dict, which are not needed.
        self.top(StateDict)
        if not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise self.refuse("the pickle sets attributes of an object")

    def integer(self, size: int) -> None:
        if size > 16:
            raise self.refuse(f"a whole number of {size} bytes is too large")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def decimal(self) -> None:
        text = self.line()
        if text in ("00", "01"):
            return self.push(text == "01")
        try:
            if len(text) > 40:
                raise ValueError
            return self.push(int(text.removesuffix("L")))
        except ValueError:
            raise self.refuse("a whole number in the pickle is malformed") from None

    def protocol(self) -> None:
        version = self.take(1)[0]
        if version > 5:
            raise self.refuse(f"pickle protocol {version} is unknown")

    def named(self, name: Any, module: Any) -> None:
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.refuse("a name in the pickle is not a string")
        self.push(Name(module, name))

    def dictionary(self) -> None:
        items = self.since_mark()
        self.push({})
        self.set_items(items)


# The instructions for data in protocols 0 to 5. Intentionally absent: INST, OBJ, NEWOBJ,
# NEWOBJ_EX, EXT*, out-of-band buffers and sets.
_STEPS: dict[int, Callable[[_Machine], Any]] = {
    ord(code): step
    for code, step in {
        "\x80": _Machine.protocol,
        "\x95": lambda m: m.take(8),  # FRAME: lengths are checked as they are read
        "(": lambda m: m.push(_MARK),
        "0": lambda m: m.pop(),
        "1": lambda m: m.since_mark(),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": _Machine.decimal,
        "L": _Machine.decimal,
        "J": lambda m: m.push(m.number("<i")),
        "K": lambda m: m.push(m.number("<B")),
        "M": lambda m: m.push(m.number("<H")),
        "\x8a": lambda m: m.integer(m.number("<B")),
        "\x8b": lambda m: m.integer(m.number("<I")),
        "G": lambda m: m.push(m.number(">d")),
        "X": lambda m: m.push(m.text(m.number("<I"))),
        "\x8c": lambda m: m.push(m.text(m.number("<B"))),
        "\x8d": lambda m: m.push(m.text(m.number("<Q"))),
        "T": lambda m: m.push(m.text(m.number("<I"))),
        "U": lambda m: m.push(m.text(m.number("<B"))),
        "V": lambda m: m.push(m.line()),
        "}": lambda m: m.push({}),
        "]": lambda m: m.push([]),
        ")": lambda m: m.push(()),
        "d": _Machine.dictionary,
        "l": lambda m: m.push(m.since_mark()),
        "t": lambda m: m.push(tuple(m.since_mark())),
        "\x85": lambda m: m.push(m.several(1)),
        "\x86": lambda m: m.push(m.several(2)),
        "\x87": lambda m: m.push(m.several(3)),
        "a": lambda m: m.extend([m.pop()]),
        "e": lambda m: m.extend(m.since_mark()),
        "s": lambda m: m.set_items(list(m.several(2))),
        "u": lambda m: m.set_items(m.since_mark()),
        "p": lambda m: m.remember(m.key()),
        "q": lambda m: m.remember(m.number("<B")),
        "r": lambda m: m.remember(m.number("<I")),
        "\x94": lambda m: m.remember(len(m.memo)),
        "g": lambda m: m.recall(m.key()),
        "h": lambda m: m.recall(m.number("<B")),
        "j": lambda m: m.recall(m.number("<I")),
        "c": lambda m: m.push(Name(m.line(), m.line())),
        "\x93": lambda m: m.named(m.pop(), m.pop()),
        "R": _Machine.reduce,
        "b": _Machine.build,
        "Q": lambda m: m.push(m.fetch(m.pop())),
    }.items()
}
