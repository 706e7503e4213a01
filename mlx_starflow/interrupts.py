"""Ctrl-C while the command is still importing: one line instead of a traceback."""

from __future__ import annotations

import os
import sys
from types import TracebackType

COMMAND = "mlx-starflow"


def hide_interrupts_of_the_command() -> None:
    """Show KeyboardInterrupt as one line if this process is the ``mlx-starflow`` command.

    Does nothing in another program that imports the package. Python ends an interrupted process
    with SIGINT, which a shell reports as status 130.
    """
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    if name != COMMAND and not (name == "-m" and "mlx_starflow" in sys.orig_argv):
        return
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write(f"{COMMAND}: Interrupted.\n")
        else:
            before(kind, error, trace)

    sys.excepthook = hook
