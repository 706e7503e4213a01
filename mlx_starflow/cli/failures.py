"""From an exception to a message of one line and an exit status."""

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

# Depending on its version, Typer contains a copy of Click or imports it.
CommandLineError: type[Any] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)


@contextmanager
def interruptible(finished: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C inside the ``with`` block into ``Interrupted``. ``finished`` is then called and
    returns what was finished by then, for the message."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; {finished()}.") from None


NOTHING = "nothing is saved"  # for ``interruptible``


@dataclass(frozen=True)
class Failure:
    """The message for the user, and the exit status."""

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
    """The message and exit status for any exception."""
    for kind, status in TABLE:
        if isinstance(error, kind):
            return Failure(_message(error), status)
    if isinstance(error, RuntimeError) and _is_memory(str(error)):
        return Failure(_MEMORY, FAILED)
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in ("mlx", "mlx_lm"):
        return Failure(_no_mlx(error), FAILED)
    what = f"{type(error).__name__}: {error}".strip(": ")
    return Failure(
        f"Unexpected error ({what}). Please run the command again with --debug and report its "
        "output.",
        FAILED,
    )


_MEMORY = "There is not enough memory. Try --low-ram, --quantize 4, or a smaller --num-images."


def _no_mlx(error: ImportError) -> str:
    """A message that says why MLX could not be loaded."""
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
    """A hint to quote the prompt if its words were parsed as separate arguments, or ""."""
    extra = re.search(r"unexpected extra argument\S* \((.*)\)", told)
    given = getattr(context, "params", {})
    words = [given[k] for k in ("prompt_option", "prompt") if isinstance(given.get(k), str)]
    if extra is None or not words:
        return ""
    prompt = " ".join([*words, extra[1]])
    return f'. If they belong to the prompt, put all of it in quotes: "{prompt}".'


def _is_memory(text: str) -> bool:
    """Whether the text of a RuntimeError of MLX is about a failed allocation."""
    signs = ("allocate", "out of memory", "insufficient memory")
    return any(sign in text.lower() for sign in signs)
