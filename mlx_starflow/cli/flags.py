"""Groups of flags: dataclasses whose fields become flags of a command.

A command with a parameter ``choice: ModelChoice`` gets the flags of this dataclass and is called
with an instance of it. Spelling and help of a flag are declared once, at the field. ``Sampling`` is
derived from ``SampleOptions``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import UsageError
from ..sampling import AUTO, SAMPLERS, SampleOptions
from ..training.options import TrainOptions
from .options import HOW, option

# Names of the library's options that are replaced by flags wherever they occur in a message.
_OPTION_NAMES = re.compile(
    r"(?<![\w.-])(max_sweeps|block_size|attention_temperature|guidance_blocks|noise_std"
    r"|negative_prompt|aspect_ratio|num_images|vae_tiling|context_frames|kv_bits)(?![\w.])"
)


# Such names at the beginning of a message, "iters is 0", which are common words elsewhere.
_FIRST = re.compile(
    r"\A(" + "|".join([f.name for f in dataclasses.fields(TrainOptions)]
                      + ["false_alarms", "fps", "step", "frames"]) + r")(?= is )"
)  # fmt: skip


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter that is a dataclass replaced by one flag per field."""
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[Any, list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if dataclasses.is_dataclass(kind):
            flags = _parameters(kind)
            groups[parameter.name] = (kind, [flag.name for flag in flags])
            parameters += flags
        else:
            parameters.append(
                parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            )

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, (kind, fields) in groups.items():
            given[name] = kind(**{field: given.pop(field) for field in fields})
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _parameters(kind: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(kind)
    ]


def with_flag_names(message: str) -> str:
    """A message of the library with the names of options replaced by flags, such as "max_sweeps"
    by "--steps"."""
    spelled = {f.name: (f.metadata["flags"] or (None,))[0] for f in SampleOptions.asked()}

    def flag(match: re.Match[str]) -> str:
        return spelled.get(match[0]) or f"--{match[0].replace('_', '-')}"

    return _OPTION_NAMES.sub(flag, _FIRST.sub(flag, message))


def sampler_names() -> list[str]:
    """The names for shell completion of --sampler."""
    return [AUTO, *SAMPLERS]


def flag_of(field: dataclasses.Field[Any], kind: Any, panel: str = HOW, help: str = "") -> Any:
    """The annotation for a field of ``SampleOptions`` or ``TrainOptions`` as an optional flag."""
    about = field.metadata
    spelled = field.name.replace("_", "-")
    names = about["flags"] or (f"--{spelled}",)
    more: dict[str, Any] = {"metavar": about["metavar"]} if about["metavar"] else {}
    plain: Any = next(t for t in (*typing.get_args(kind), kind) if t is not type(None))
    if plain is bool:
        names = (f"--{spelled}/--no-{spelled}",)
    elif about["choices"]:
        plain = typing.cast(Any, StrEnum)(
            field.name.title(), {name: name for name in about["choices"]}
        )
    elif typing.get_origin(plain) is tuple or plain is int and typing.get_origin(kind) is tuple:
        plain = str
    if field.name == "sampler":
        more["autocompletion"] = sampler_names
    return Annotated[plain | None, option(*names, panel=panel, help=help or about["help"], **more)]


def _sampling_fields(kinds: tuple[bool, ...]) -> list[tuple[str, Any, Any]]:
    """``kinds``: False for the options of all samples, True for those of clips."""
    hints = typing.get_type_hints(SampleOptions)
    return [
        (field.name, flag_of(field, hints[field.name]), dataclasses.field(default=None))
        for field in SampleOptions.asked()
        if bool(field.metadata["clips"]) in kinds
    ]


class _Given:
    """Base class of a group of optional flags."""

    def given(self) -> dict[str, Any]:
        """The arguments of ``Pipeline.generate`` that were given."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        found = {name: value for name, value in values.items() if value is not None}
        if "windows" in found:
            found["windows"] = _numbers(found["windows"])
        return {k: v.value if isinstance(v, StrEnum) else v for k, v in found.items()}


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--windows {text}: expected whole numbers separated by commas, one per block, such as "
            "16,16,1."
        ) from None


if TYPE_CHECKING:
    Sampling = _Given
    ClipSampling = _Given
    ClipWindow = _Given
else:
    Sampling, ClipSampling, ClipWindow = (
        dataclasses.make_dataclass(name, _sampling_fields(kinds), bases=(_Given,), frozen=True)
        for name, kinds in (
            ("Sampling", (False,)), ("ClipSampling", (False, True)), ("ClipWindow", (True,)),
        )
    )  # fmt: skip
