"""Warnings about prompts, the same in every command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..pipeline import Pipeline
from .console import Console
from .job import Work

TOLD_SEEDS = 8  # most random seeds in a message


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


def check_quotes(files: Sequence[Path], prompts: Sequence[str] | None) -> None:
    """Raise a UsageError if words of a prompt without quotes were parsed as names of files."""
    stray = [str(p) for p in files if not p.suffix and not p.exists()]
    if prompts and prompts[-1] and stray:
        raise UsageError(
            f"{stray[0]}: there is no such file. If it belongs to the prompt, put all of it in "
            f'quotes: --prompt "{" ".join([prompts[-1], *stray])}".'
        )


def every_prompt(work: Work) -> list[str | None]:
    """All prompts of the work, the negative one included."""
    prompts = [prompt for batch in work.batches for prompt in batch.prompts]
    return [*prompts, work.options.get("negative_prompt")]


def tell_random_seeds(work: Work, console: Console) -> None:
    """Show seeds that were chosen at random, so that the same can be drawn again."""
    if not work.random_seeds:
        return
    seeds = list(dict.fromkeys(seed for batch in work.batches for seed in batch.seeds))
    several = "s" if len(seeds) > 1 else ""
    more = f" and {len(seeds) - TOLD_SEEDS} more" if len(seeds) > TOLD_SEEDS else ""
    console.say(f"Random seed{several}: {', '.join(map(str, seeds[:TOLD_SEEDS]))}{more}.")
