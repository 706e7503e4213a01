"""The end of ``vary`` and ``decode``: draw pictures or clips, and show what was made."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .console import Console
from .drawing import Report, run
from .filming import Filming, film
from .job import Job
from .options import Messages
from .outputs import DEFAULT
from .results import show
from .viewer import show_files


def draw_either(
    clips: bool,
    work: dict[str, Any],
    output: Path | None,
    began: float,
    messages: Messages,
    verbose: bool,
    open_: bool,
    draw: Callable[[Job, Console], Report] = run,
) -> None:
    """Draw, save and show. ``work``: the fields of ``Work``. ``began``: when the command did, in
    seconds of ``time.perf_counter``. ``draw``: draws the pictures. Errors: those of ``draw`` and
    ``film``."""
    console = Console(messages.quiet, verbose)
    if clips:
        filmed = film(Filming(**work, output=output), console)
        made, records = filmed.to_dict(time.perf_counter() - began), filmed.records
    else:
        drawn = draw(Job(**work, output=output or Path(DEFAULT)), console)
        made, records = drawn.to_dict(time.perf_counter() - began), drawn.records
    show(made, messages.json_, of="clips" if clips else "images")
    if open_:
        show_files([record["path"] for record in records], console)
