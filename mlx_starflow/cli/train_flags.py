"""The flags of ``train`` that set training options: one for each field of ``TrainOptions``."""

from __future__ import annotations

import dataclasses
import typing
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ..training.options import TrainOptions
from .flags import flag_of

PANEL = "How to train"


class _Given:
    """The training options of the command line."""

    def given(self) -> dict[str, Any]:
        """The fields of ``TrainOptions`` that were given on the command line."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        found = {name: value for name, value in values.items() if value is not None}
        if "lora_keys" in found:
            found["lora_keys"] = tuple(k.strip() for k in found["lora_keys"].split(","))
        return {k: v.value if isinstance(v, StrEnum) else v for k, v in found.items()}


def _help(field: dataclasses.Field[Any]) -> str:
    default = field.default
    if default == "" or isinstance(default, bool | tuple):
        return str(field.metadata["help"])
    return f"{field.metadata['help']} Default: {default}."


def _fields() -> list[tuple[str, Any, Any]]:
    hints = typing.get_type_hints(TrainOptions)
    found = []
    for field in dataclasses.fields(TrainOptions):
        flag = flag_of(field, hints[field.name], PANEL, _help(field))
        found.append((field.name, flag, dataclasses.field(default=None)))
    return found


if TYPE_CHECKING:
    Training = _Given
else:
    Training = dataclasses.make_dataclass("Training", _fields(), bases=(_Given,), frozen=True)
