"""The report of a command that makes pictures or clips: its files, as paths or one JSON object, and
warnings about accuracy and weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from ..errors import Interrupted
from ..files.counted import counted
from ..pipeline import Pipeline
from .console import Console
from .failures import NOTHING
from .job import Work

SAMPLE_LONGER = "Allow more --steps, or use --sampler sequential."
MORE_BITS = "That is the error of --kv-bits {}; leave it out if the memory suffices."


def show(result: dict[str, Any], as_json: bool, of: str = "images") -> None:
    """Print ``{of: [{"path", ...}], "files": [path], ...}`` to standard output: the paths, or one
    JSON object."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    for record in result[of]:
        typer.echo(record["path"])
    for path in result.get("files", ()):
        typer.echo(path)


def warn_not_converged(
    ended: Sequence[tuple[bool, float | None]],
    console: Console,
    advice: str = SAMPLE_LONGER,
    what: str = "pictures",
) -> None:
    """Show a warning of one line if a sampler ended above its tolerance. ``ended``: for each
    picture or clip, whether it converged, and its residual if that was measured."""
    missed = [residual for converged, residual in ended if not converged]
    if not missed:
        return
    worst = max((residual for residual in missed if residual is not None), default=None)
    which = "" if len(ended) == 1 else f"{len(missed)} of {len(ended)} {what} "
    error = "" if worst is None else f": the largest residual is {worst:.2g}"
    console.say(f"Warning: {which}not converged{error}. {advice}")


def advice_for(options: dict[str, Any]) -> str:
    """What to do about a picture or clip that did not converge with these options."""
    bits = options.get("kv_bits")
    return MORE_BITS.format(bits) if bits else SAMPLE_LONGER


def warn_other_weights(work: Work, pipe: Pipeline, console: Console, what: str) -> None:
    """Show a warning if the file that is drawn again was made with other weights or adapters."""
    if work.expected_weights and pipe.fingerprint != work.expected_weights:
        console.say(
            f"Warning: the {what} was made with other weights ({work.expected_weights}; this "
            f"model's are {pipe.fingerprint}); it will not be the same."
        )


def interrupted(done: Sequence[str], total: int, what: str) -> Interrupted:
    """The error after Ctrl-C, which names the files that were finished."""
    finished = f"finished: {', '.join(done)}" if done else NOTHING
    return Interrupted(f"Interrupted after {len(done)} of {counted(total, what)}; {finished}.")
