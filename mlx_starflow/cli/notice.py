"""What the embedded model is: said once on a machine, after its first picture."""

from __future__ import annotations

from ..bundle.vocabulary import read_vocabulary
from ..hub.cache import cache_directory
from ..pipeline import Pipeline
from .console import Console

MARK = ".embedded-model-introduced"


def introduce(pipe: Pipeline, console: Console) -> None:
    """One line about the embedded model, unless it was shown before or quiet is asked for."""
    mark = cache_directory() / MARK
    if console.quiet or mark.exists() or read_vocabulary(pipe.directory) is None:
        return
    console.say(
        "Drawn by the small embedded model (its words: mlx-starflow models show default). For any "
        "prompt: --model apple/starflow, 15 GB, research only."
    )
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return  # a cache that cannot be written: it is said again next time
