"""From an exception to one line and an exit status: the only table of them."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer

from ..errors import Interrupted, ModelNotFoundError, StarflowError, TextError, UsageError

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Typer carries its own copy of Click or imports it, by version; the class is found by its name.
CommandLineError: type[Any] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)


@contextmanager
def interruptible(finished: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C inside becomes ``Interrupted`` with what ``finished`` says at that moment."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; {finished()}.") from None


NOTHING = "nothing is saved"  # what most commands have finished when they are interrupted


@dataclass(frozen=True)
class Failure:
    """What a person and the shell get."""

    message: str
    status: int


TABLE: tuple[tuple[type[BaseException], int], ...] = (  # the first match counts
    (Interrupted, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
    (typer.Abort, INTERRUPTED),
    (CommandLineError, USAGE),
    (UsageError, USAGE),
    (TextError, USAGE),
    (ModelNotFoundError, USAGE),
    (StarflowError, FAILED),
    (MemoryError, FAILED),
    (OSError, FAILED),
)


def explain(error: BaseException) -> Failure:
    """The line and status for any exception."""
    for kind, status in TABLE:
        if isinstance(error, kind):
            return Failure(_message(error), status)
    if isinstance(error, RuntimeError) and _is_memory(str(error)):
        return Failure(_MEMORY, FAILED)
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in ("mlx", "mlx_lm"):
        return Failure(_no_mlx(error), FAILED)
    what = f"{type(error).__name__}: {error}".strip(": ")
    return Failure(
        f"Unexpected error ({what}). Run the command again with --debug and report what it shows.",
        FAILED,
    )


_MEMORY = (
    "There is not enough memory for this. Try --low-ram, --quantize 4, or a smaller --num-images."
)


def _no_mlx(error: ImportError) -> str:
    """Why MLX, which everything here computes with, could not be loaded."""
    reason = str(error).splitlines()[0]
    if "libcu" in reason or "nvidia" in reason.lower():
        return (
            f"MLX for NVIDIA GPUs cannot be loaded ({reason}): is there a GPU with its driver on "
            "this machine? Without one install mlx-starflow without [cuda]: "
            "pip uninstall mlx-cuda-13 mlx-cuda-12; pip install --force-reinstall 'mlx[cpu]'"
        )
    return f"MLX cannot be loaded ({reason}). Install it again: pip install --force-reinstall mlx"


def _message(error: BaseException) -> str:
    if isinstance(error, CommandLineError):
        told = " ".join(error.format_message().replace("Value error, ", "").split())
        return told + _quote_hint(told, getattr(error, "ctx", None))
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return str(error) or "Interrupted."
    if isinstance(error, UsageError):
        from .flags import with_flag_names  # imports MLX, which may be what failed

        return with_flag_names(" ".join(str(error).split()))
    if isinstance(error, StarflowError | Interrupted):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return "The disk is full; free some space and run the command again."
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}."
    return str(error)


def _quote_hint(told: str, context: Any) -> str:
    """What to do about words of a prompt that were taken for arguments of their own."""
    extra = re.search(r"unexpected extra argument\S* \((.*)\)", told)
    given = getattr(context, "params", {})
    words = [given[k] for k in ("prompt_option", "prompt") if isinstance(given.get(k), str)]
    if extra is None or not words:
        return ""
    prompt = " ".join([*words, extra[1]])
    return f'. If they belong to the prompt, put all of it in quotes: "{prompt}".'


def _is_memory(text: str) -> bool:
    """MLX reports a failed allocation as a RuntimeError."""
    signs = ("allocate", "out of memory", "insufficient memory")
    return any(sign in text.lower() for sign in signs)
