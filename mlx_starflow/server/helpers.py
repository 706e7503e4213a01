"""Other ranks that draw parts of the server's batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from ..editing.selection import advantages_of
from ..generation.result import Result
from ..pipeline import Pipeline
from .job import Drawn, Item

Collect = Callable[[], list[tuple[Item, Drawn]]]


class Helpers(Protocol):
    """Draws pictures elsewhere, each helper one part of a batch at a time."""

    count: int  # helpers

    def start(self, parts: list[list[Item]]) -> Collect:
        """Begin to draw at most ``count`` parts of a batch. The function that it returns waits for
        them; it must be called. Errors, of that function: StarflowError."""
        ...


class NoHelpers:
    """One process draws everything."""

    count = 0

    def start(self, parts: list[list[Item]]) -> Collect:
        return list


def divided(batch: list[Item], ranks: int) -> list[list[Item]]:
    """The batch in at most ``ranks`` parts of nearly the same size, in order; none is empty."""
    parts = min(ranks, len(batch))
    cuts = [len(batch) * i // parts for i in range(parts + 1)]
    return [batch[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


def gains_of(pipe: Pipeline, result: Result) -> list[float | None]:
    """log p(x | prompt) - log p(x | no prompt) of each picture, in nats; None without a prompt."""
    prompts, ratio = result.settings.prompts, result.settings.aspect_ratio
    gains: list[float | None] = [None] * len(prompts)
    rows = [i for i, prompt in enumerate(prompts) if prompt]
    if rows:

        def compute() -> np.ndarray:
            x = result.latents[mx.array(rows)]
            return advantages_of(pipe, x, tuple(prompts[i] for i in rows), ratio)

        for i, value in zip(rows, pipe.run(compute), strict=True):
            gains[i] = round(float(value), 3)
    return gains


def request_of(part: list[Item]) -> dict[str, Any]:
    """What a helper needs to draw a part, as values for JSON."""
    jobs: list[Any] = [item.job for item in part]
    return {
        "prompts": [job.prompts[item.index] for job, item in zip(jobs, part, strict=True)],
        "seeds": [job.seeds[item.index] for job, item in zip(jobs, part, strict=True)],
        "options": jobs[0].options,
    }
