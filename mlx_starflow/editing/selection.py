"""Choosing among samples by what the flow itself says of them, exactly."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..errors import UsageError
from ..exact.scoring import surprise
from ..generation.result import Result
from ..pipeline import Pipeline
from .inputs import contexts_of


def advantages(pipe: Pipeline, result: Result) -> np.ndarray:
    """log p(x | its prompt) - log p(x | null caption) in nats, (B,), of samples x just drawn.

    x is the sample before denoising: noise included, just what the flow models, so that nothing
    is averaged and nothing approximated. The difference asks how much better the prompt explains
    the picture than no prompt does; log p(x | prompt) alone would favour plain pictures.
    Errors: UsageError where there is no prompt to compare.
    """
    settings = result.settings
    if not all(settings.prompts):
        raise UsageError("Choosing the best of several needs a prompt to compare with none.")
    return advantages_of(pipe, result.latents, settings.prompts, settings.aspect_ratio)


def advantages_of(
    pipe: Pipeline, x: mx.array, prompts: tuple[str, ...], aspect_ratio: str = "1:1"
) -> np.ndarray:
    """The same of any x (B, h, w, c) as the flow models it, with one prompt for each row."""
    different = list(dict.fromkeys(prompts))
    contexts = contexts_of(pipe, [*different, ""], aspect_ratio)
    if contexts is None:
        raise UsageError("This model is unconditional: no prompt can be compared with none.")
    found = np.empty(x.shape[0])
    for i, prompt in enumerate(different):
        rows = np.flatnonzero([p == prompt for p in prompts])
        pair = mx.concatenate([contexts[i : i + 1], contexts[-1:]])
        nats = surprise(pipe.flow, x[mx.array(rows)], pair).sum(axis=-1)
        found[rows] = nats[1] - nats[0]
    return found
