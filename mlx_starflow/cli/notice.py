"""The notice about the embedded model, shown once per machine, after its first picture."""

from __future__ import annotations

from ..bundle.vocabulary import read_vocabulary
from ..hub.cache import cache_directory
from ..pipeline import Pipeline
from .console import Console

MARK = ".embedded-model-introduced"


def introduce(pipe: Pipeline, console: Console) -> None:
    """Show one line about the embedded model, unless it was shown before or --quiet is given."""
    mark = cache_directory() / MARK
    if console.quiet or mark.exists() or read_vocabulary(pipe.directory) is None:
        return
    console.say(
        "Drawn by the small embedded model (for its words: mlx-starflow models show default). For "
        "other prompts: --model apple/starflow (15 GB, for research only)."
    )
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return  # the cache cannot be written, so the notice is shown again next time
