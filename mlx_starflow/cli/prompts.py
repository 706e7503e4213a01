"""What a model cannot read of a prompt, said in the same words by every command."""

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
    """Say which words the model does not know and which prompts are too long for it.

    ``cuts`` False: the work itself will tell of prompts that were cut.
    """
    given = [prompt for prompt in prompts if prompt]
    if not given or console.quiet:
        return
    for note in pipe.prompt_notes(given, aspect_ratio, cuts):
        console.say(f"Warning: {note}")
