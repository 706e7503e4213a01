"""The work of a command that draws: ``Job`` for the pictures of ``generate``, ``decode`` and
``vary``, and ``Work``, its part that is shared with the clips of ``video``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .start import Start


@dataclass(frozen=True)
class Batch:
    """Pictures that are drawn together, with one prompt and one seed per picture."""

    prompts: tuple[str | None, ...]
    seeds: tuple[int, ...]
    prompt_number: int | None = None  # from 1; None: the job has only one prompt
    keep: tuple[int, ...] | None = None  # indices of the pictures to save; None: all
    best_of: dict[str, Any] | None = None  # seeds and scores from which the picture was chosen


@dataclass(frozen=True, kw_only=True)
class Work:
    """The batches to draw, the model, the options and the noise."""

    model: str | None
    dtype: str | None
    quantize: int | str | None
    low_ram: bool
    batches: list[Batch]
    options: dict[str, Any]  # of Pipeline.generate
    adapters: tuple[tuple[str, float], ...] = ()  # directory and scale
    noise: np.ndarray | None = None
    noise_file: str = ""
    embed: bool = True  # store the settings in the file
    expected_weights: str | None = None  # fingerprint in the file that is drawn again
    random_seeds: bool = False  # the seeds were chosen at random
    start: Start | None = None  # start from its noise instead of ``noise``
    carried: dict[str, Any] = field(default_factory=dict)  # more settings to store in the file


@dataclass(frozen=True, kw_only=True)
class Job(Work):
    """The pictures that a command draws, and the outputs to save."""

    output: Path
    save_latents: Path | None = None
    stepwise: Path | None = None
    grid: bool = False
    sidecar: bool = False  # store the settings beside the picture
    best_of: bool = False  # keep only the picture of each batch that fits its prompt best
    uncertainty: bool = False  # also save maps of the uncertainty
    resume: bool = False  # leave out the batches that are on disk
    swallowed: tuple[int, ...] = ()  # numbers after one --seed, if no prompt was given

    @property
    def pictures(self) -> int:
        """The number of pictures to save."""
        return sum(1 if self.best_of else len(b.keep or b.seeds) for b in self.batches)
