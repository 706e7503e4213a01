"""Warnings about prompts, the same in every command."""

from __future__ import annotations

from collections.abc import Sequence

from ..pipeline import Pipeline
from .console import Console


def tell_prompts(
    pipe: Pipeline,
    prompts: Sequence[str | None],
    console: Console,
    aspect_ratio: str = "1:1",
    cuts: bool = True,
) -> None:
    """Show warnings about words that the model does not know and prompts that are too long.

    ``cuts`` False: only unknown words; drawing itself reports prompts that were cut.
    """
    given = [prompt for prompt in prompts if prompt]
    if not given or console.quiet:
        return
    for note in pipe.prompt_notes(given, aspect_ratio, cuts):
        console.say(f"Warning: {note}")
