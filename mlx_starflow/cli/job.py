"""The job of ``generate``, ``decode`` or ``vary``: what is to be drawn and saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .start import StartPicture


@dataclass(frozen=True)
class Batch:
    """Pictures that are drawn together, with one prompt and one seed per picture."""

    prompts: tuple[str | None, ...]
    seeds: tuple[int, ...]
    prompt_number: int | None = None  # from 1; None: the job has only one prompt
    keep: tuple[int, ...] | None = None  # indices of the pictures to save; None: all
    best_of: dict[str, Any] | None = None  # seeds and scores from which the picture was chosen


@dataclass(frozen=True)
class Job:
    """Everything that a command draws and saves."""

    model: str | None
    dtype: str | None
    quantize: int | str | None
    low_ram: bool
    batches: list[Batch]
    options: dict[str, Any]  # of Pipeline.generate
    output: Path
    adapters: tuple[tuple[str, float], ...] = ()  # directory and scale
    noise: np.ndarray | None = None
    noise_file: str = ""
    image: StartPicture | None = None  # start from its noise instead of ``noise``
    save_latents: Path | None = None
    stepwise: Path | None = None
    grid: bool = False
    embed: bool = True  # store the settings in the picture
    sidecar: bool = False  # store the settings beside the picture
    expected_weights: str | None = None  # fingerprint in the picture that is drawn again
    best_of: bool = False  # keep only the picture of each batch that fits its prompt best
    uncertainty: bool = False  # also save maps of the uncertainty
    random_seeds: bool = False  # the seeds were chosen at random
    swallowed: tuple[int, ...] = ()  # numbers after one --seed, if no prompt was given
    carried: dict[str, Any] = field(default_factory=dict)  # more settings to store in the pictures

    @property
    def pictures(self) -> int:
        """The number of pictures to save."""
        return sum(1 if self.best_of else len(b.keep or b.seeds) for b in self.batches)
