"""What is to be drawn and saved: a call of ``generate``, ``decode`` or ``vary``, resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .start import StartPicture


@dataclass(frozen=True)
class Batch:
    """Pictures made together: one prompt and one seed each."""

    prompts: tuple[str | None, ...]
    seeds: tuple[int, ...]
    prompt_number: int | None = None  # counted from 1, where there are several prompts
    keep: tuple[int, ...] | None = None  # the pictures that are saved; None: all
    best_of: dict[str, Any] | None = None  # what the choice of the kept picture was made from


@dataclass(frozen=True)
class Job:
    """A whole call of ``generate``, resolved."""

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
    image: StartPicture | None = None  # its noise is where the pictures start, instead of ``noise``
    save_latents: Path | None = None
    stepwise: Path | None = None
    grid: bool = False
    embed: bool = True  # settings inside the picture
    sidecar: bool = False  # settings beside the picture
    expected_weights: str | None = None  # of the picture that is replayed
    best_of: bool = False  # keep the picture of each batch that fits its prompt best
    uncertainty: bool = False  # also say and paint how sure the flow is of each picture
    random_seeds: bool = False  # nobody chose the seeds
    swallowed: tuple[int, ...] = ()  # numbers after one --seed, where no prompt was given
    carried: dict[str, Any] = field(default_factory=dict)  # more to be stored in the pictures

    @property
    def pictures(self) -> int:
        return sum(1 if self.best_of else len(b.keep or b.seeds) for b in self.batches)
