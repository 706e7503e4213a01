"""Step weights: how much coarser than the others each number of a token may be rounded.

A model without step weights rounds all numbers equally. With them, the same error of any number of
a token changes the pixels by the same amount on average, which saves bytes at the same PSNR.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from PIL import Image

from ..editing.inputs import contexts_of, latents_of
from ..errors import ConfigError, UsageError
from ..exact.codec import before_deep_block, before_shallow_blocks
from ..flow.grid import grid_of, patchify, unpatchify
from ..pipeline import Pipeline

_NOISE = 0.3  # standard deviation of the test noise, in the units of the deep block's input
_LARGEST = 8.0  # a weight is at least 1/8 and at most 8


def step_weights(pipe: Pipeline) -> np.ndarray:
    """The step weights (D,) in the model's config.json ("codec"), or ones. Errors: ConfigError."""
    size, codec = pipe.flow.config.token_channels, pipe.config.codec
    if codec is None:
        return np.ones(size)
    if len(codec.step_weights) != size:
        raise ConfigError(
            f"config.json: codec has {len(codec.step_weights)} step_weights; expected {size}, one "
            "for each number of a token."
        )
    return np.array(codec.step_weights, np.float64)


def measured_step_weights(
    pipe: Pipeline, images: Sequence[Image.Image], seed: int = 0
) -> tuple[float, ...]:
    """Measure step weights (D,): noise is added to one number of all tokens of ``images`` at a
    time, and the weight is the inverse root of the mean squared change of the pixels, relative to
    the geometric mean of all. D + 1 decodings of all images.

    images: at least one, of the model's size, like those that are to be compressed. To use the
    weights, write them into the model's config.json: {"codec": {"step_weights": [...]}}.
    """
    if not images:
        raise UsageError("images is empty; expected pictures to measure step weights with.")
    flow, rng = pipe.flow, np.random.default_rng(seed)
    x = latents_of(pipe, list(images))
    grid, context = grid_of(x, flow.config), contexts_of(pipe, [""] * len(images))
    u = np.array(before_deep_block(flow, patchify(x, flow.config), grid, context))

    def pixels(u: np.ndarray) -> np.ndarray:
        latents = before_shallow_blocks(flow, mx.array(u), grid, context)
        decoded = pipe.decode(unpatchify(latents, grid, flow.config))
        return np.stack([np.asarray(image, np.float64) for image in decoded])

    plain, gains = pixels(u), []
    for d in range(u.shape[-1]):
        noisy = u.copy()
        noisy[..., d] += _NOISE * rng.standard_normal(u.shape[:-1])
        gains.append(np.square(pixels(noisy) - plain).mean())
    logs = -0.5 * np.log(np.maximum(gains, 1e-12))
    weights = np.clip(np.exp(logs - logs.mean()), 1 / _LARGEST, _LARGEST)
    return tuple(round(float(w), 3) for w in weights)
