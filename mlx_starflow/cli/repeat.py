"""Pictures of commands that -C does not repeat: the command line that makes them again."""

from __future__ import annotations

import shlex
from typing import Any

from ..errors import UsageError
from ..files.fields import Fields
from ..files.visible import visible

# Command -> stored setting -> flag.
_FLAGS: dict[str, dict[str, str]] = {
    "edit": {
        "mask": "--mask", "boxes": "--box", "prompt": "--prompt", "seed": "--seed",
        "guidance": "--guidance", "model": "--model",
    },
    "interpolate": {
        "seeds": "--seed", "prompts": "--prompt", "frames": "--frames",
        "clip_frames": "--clip-frames", "guidance": "--guidance", "fps": "--fps",
        "window": "--window", "context_frames": "--context", "model": "--model",
    },
    "score": {"prompts": "--prompt", "draws": "--draws", "seed": "--seed", "model": "--model"},
}  # fmt: skip
_ARGUMENTS = {"edit": "source", "interpolate": "pictures", "score": "source"}  # not flags


def refuse_other_commands(data: dict[str, Any], where: str, clips: bool = False) -> None:
    """Raise a UsageError for settings of a command that ``--config-from-metadata`` does not repeat;
    the message has the command line to use. ``where``: the file. ``clips``: whether clips are
    repeated."""
    command = Fields(data, where, UsageError).text("command", None, most=100)
    if command is None:
        return
    line = "mlx-starflow video -C FILE" if command == "video" else _command_line(command, data)
    how = f" To make it again, use: {line}" if line else ""
    known = "clips of video" if clips else "pictures of generate"
    raise UsageError(
        f"{where} was made by {command!r}; --config-from-metadata repeats only {known}, decode and "
        f"vary.{how}"
    )


def _command_line(command: str, data: dict[str, Any]) -> str:
    if command not in _FLAGS:
        return ""
    words = ["mlx-starflow", command, *_texts(data.get(_ARGUMENTS[command]))]
    for name, flag in _FLAGS[command].items():
        value = data.get(name)
        if name == "boxes" and isinstance(value, list):
            value = [",".join(_texts(box)) for box in value]
        if name == "model" and value == "default":
            continue
        for text in _texts(value):
            words += [flag, text]
    return visible(shlex.join(words))


def _texts(value: Any) -> list[str]:
    """A value, or the values of a list, as texts; only texts and numbers, at most 8."""
    values = value[:8] if isinstance(value, list) else [value]
    plain = [v for v in values if isinstance(v, str | int | float) and not isinstance(v, bool)]
    return [str(v)[:200] for v in plain if v != ""]
