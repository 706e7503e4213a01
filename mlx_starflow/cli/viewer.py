"""``--open``: pictures in the system's own viewer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from .console import Console


def show_files(paths: Iterable[str | Path], console: Console) -> None:
    """Open each file with the program that the system uses for it. Nothing fails where there is
    none: the files are written, and their names are printed."""
    for path in paths:
        if typer.launch(str(path)) != 0:
            console.say(f"Note: there is no program here to open {path} with.")
            return
