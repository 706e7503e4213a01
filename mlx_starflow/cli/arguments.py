"""Changes to a command line before it is parsed.

``--seed 1 2 3`` and ``--image fox.png 0.3`` give one flag several values, but the parser allows one
value per flag.
"""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..generation.settings import MAX_SEED

_NUMBER = re.compile(r"\d+")
_SHARE = re.compile(r"0?\.\d+|[01](\.0*)?")
_SCALE = re.compile(r"-?(\d+\.?\d*|\.\d+)")
_MARK = "\x1f"  # between a directory and its scale; nobody types it


class Seeds(tuple[int, ...]):
    """The numbers after one ``--seed``."""


class Lora(tuple[str, float]):
    """The directory and the scale that stand after one ``--lora``."""


def prepared(arguments: list[str], commands: dict[str, Any]) -> list[str]:
    """The arguments with the values of each ``--seed`` and each ``--lora`` joined, and the strength
    after ``--image`` as a flag of its own.

    ``commands``: the parser's commands by name, whose parameters say which flags a command has and
    whether ``--seed`` may be repeated. Errors: UsageError.
    """
    command = next((commands[a] for a in arguments if a in commands), None)
    if command is None:
        return arguments
    refuse_empty_paths(arguments, command)
    flags = {name: p for p in getattr(command, "params", ()) for name in p.opts}
    seed = flags.get("--seed")
    if seed is not None and seed.multiple:
        arguments = join_seeds(arguments)
    elif seed is not None and _before_end(arguments).count("--seed") > 1:
        raise UsageError(f"{command.name} takes one --seed, but several are given.")
    if "--lora" in flags:
        arguments = join_scales(arguments)
    return split_strength(arguments) if "--image-strength" in flags else arguments


def refuse_empty_paths(arguments: list[str], command: Any) -> None:
    """Raise a UsageError for an empty file or directory name, which would mean the current
    directory."""
    inner = getattr(command, "commands", None)
    if inner is not None:  # a group
        command = next((inner[a] for a in arguments if a in inner), None)
    paths = _path_parameters(command)
    parameters = getattr(command, "params", ())
    flags = {name: p for p in parameters for name in p.opts if name.startswith("-")}
    files = any(p.name in paths for p in parameters if not p.opts[0].startswith("-"))
    before: Any = None  # the flag whose value comes next
    for argument in arguments:
        name, equals, value = argument.partition("=")
        flag = flags.get(name)
        if before is None and flag is not None and not getattr(flag, "is_flag", False):
            if equals and not value and flag.name in paths:
                raise UsageError(f"{name}: the name is empty; expected a path.")
            before = None if equals else flag
            continue
        if not argument and before is not None and before.name in paths:
            raise UsageError(f"{before.opts[0]}: the name is empty; expected a path.")
        if not argument and before is None and files:
            raise UsageError("A file name is empty; expected a path.")
        before = None


def _path_parameters(command: Any) -> set[str]:
    """Names of the parameters of a command that are paths."""
    function = getattr(command, "callback", None)
    if function is None:
        return set()
    hints = typing.get_type_hints(getattr(function, "__wrapped__", function))
    return {name for name, hint in hints.items() if _has_path(hint)}


def _has_path(hint: Any) -> bool:
    return hint is Path or any(_has_path(part) for part in typing.get_args(hint))


def join_seeds(arguments: list[str]) -> list[str]:
    """``--seed 1 2 3`` becomes ``--seed "1 2 3"``; only whole numbers are joined."""
    joined: list[str] = []
    inside = False
    for i, argument in enumerate(arguments):
        if argument == "--":
            return joined + arguments[i:]
        if inside and _NUMBER.fullmatch(argument) and joined[-1] != "--seed":
            joined[-1] += f" {argument}"
            continue
        if argument.startswith("-") or (inside and joined[-1] != "--seed"):
            inside = argument == "--seed"
        joined.append(argument)
    return joined


def join_scales(arguments: list[str]) -> list[str]:
    """``--lora DIR 0.8`` as one value: a number after the directory is its scale."""
    joined: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            return joined + arguments[i:]
        if i > 1 and arguments[i - 2] == "--lora" and _SCALE.fullmatch(argument):
            joined[-1] += f"{_MARK}{argument}"
        else:
            joined.append(argument)
    return joined


def read_lora(text: str) -> Lora:
    """The directory and the scale of one ``--lora``; 1 where none is given."""
    directory, _, scale = text.partition(_MARK)
    return Lora((directory, float(scale or 1)))


def split_strength(arguments: list[str]) -> list[str]:
    """``--image fox.png 0.3`` becomes ``--image fox.png --image-strength 0.3``."""
    split: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            return split + arguments[i:]
        if i > 1 and arguments[i - 2] in ("--image", "--image-path") and _SHARE.fullmatch(argument):
            split.append("--image-strength")
        split.append(argument)
    return split


def read_seeds(text: str) -> Seeds:
    """Parse the value of one ``--seed``. Errors: UsageError."""
    for part in text.split() or [text]:
        if not re.fullmatch(r"\d{1,20}", part) or int(part) >= MAX_SEED:
            raise UsageError(
                f"--seed {part}: expected a whole number from 0 to {MAX_SEED - 1}, or several, "
                "separated by spaces."
            )
    return Seeds(map(int, text.split()))


def all_seeds(given: list[Seeds] | None) -> list[int]:
    """The numbers of all ``--seed`` flags, in order."""
    return [number for seeds in given or () for number in seeds]


def _before_end(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments
