"""Choosing among samples by their exact likelihoods."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..errors import UsageError
from ..exact.scoring import surprise
from ..generation.result import Result
from ..pipeline import Pipeline
from .inputs import contexts_of


def advantages(pipe: Pipeline, result: Result) -> np.ndarray:
    """log p(x | prompt) - log p(x | null caption) in nats, (B,), for the samples x of a result.

    x is the sample before denoising, which has the noise that the flow models, so the numbers are
    exact. The difference says how much better the prompt explains the picture than no prompt;
    log p(x | prompt) alone would favour simple pictures. Errors: UsageError if a prompt is empty.
    """
    settings = result.settings
    if not all(settings.prompts):
        raise UsageError("Choosing the best of several pictures needs a prompt.")
    return advantages_of(pipe, result.latents, settings.prompts, settings.aspect_ratio)


def advantages_of(
    pipe: Pipeline, x: mx.array, prompts: tuple[str, ...], aspect_ratio: str = "1:1"
) -> np.ndarray:
    """``advantages`` for any x (B, h, w, c) as the flow models it, with one prompt per row.
    Errors: UsageError, NumericsError."""
    different = list(dict.fromkeys(prompts))
    contexts = contexts_of(pipe, [*different, ""], aspect_ratio)
    if contexts is None:
        raise UsageError("This model is unconditional, so it has no likelihood given a prompt.")
    found = np.empty(x.shape[0])
    for i, prompt in enumerate(different):
        rows = np.flatnonzero([p == prompt for p in prompts])
        pair = mx.concatenate([contexts[i : i + 1], contexts[-1:]])
        nats = surprise(pipe.flow, x[mx.array(rows)], pair).sum(axis=-1)
        found[rows] = nats[1] - nats[0]
    return found
