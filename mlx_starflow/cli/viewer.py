"""``--open``: opens pictures in the system's viewer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from .console import Console


def show_files(paths: Iterable[str | Path], console: Console) -> None:
    """Open each file with the system's program for it. If there is none, show a note; this is no
    error, since the files have been written."""
    for path in paths:
        if typer.launch(str(path)) != 0:
            console.say(f"Note: there is no program to open {path} with.")
            return
