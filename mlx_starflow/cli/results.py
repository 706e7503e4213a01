"""What a command that makes pictures prints: their paths or one JSON object, and a warning about
pictures whose sampler ended above its tolerance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from .console import Console


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print ``{"images": [{"path", ...}], "files": [path], ...}`` to standard output: the paths, or
    one JSON object."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    for record in result["images"]:
        typer.echo(record["path"])
    for path in result.get("files", ()):
        typer.echo(path)


def warn_not_converged(
    pictures: Sequence[tuple[bool, float | None]], console: Console, advice: str
) -> None:
    """A warning, in one line, if a sampler ended above its tolerance. ``pictures``: of each one
    whether it converged, and its residual if that was measured."""
    missed = [residual for converged, residual in pictures if not converged]
    if not missed:
        return
    worst = max((residual for residual in missed if residual is not None), default=None)
    which = "" if len(pictures) == 1 else f"{len(missed)} of {len(pictures)} pictures "
    error = "" if worst is None else f": the largest residual is {worst:.2g}"
    console.say(f"Warning: {which}not converged{error}. {advice}")
