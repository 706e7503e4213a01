"""Encoding given pictures as noise, varying the noise, and drawing pictures from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from PIL import Image

from ..exact.denoise import denoise
from ..exact.encoding import encode
from ..exact.noise import seeded_noise
from ..exact.sphere import slerp
from ..flow import Context
from ..pictures.arrays import check_finite
from ..pipeline import Pipeline
from .inputs import latents_of


@dataclass(frozen=True)
class EncodedPictures:
    """Pictures encoded as noise."""

    x: mx.array  # (B, h, w, c) the latents that were encoded, with noise if it was added
    z: mx.array  # (B, h, w, c) noise; invert(flow, z, context, guidance=...) returns x
    context: Context  # for ``invert``
    own: Context  # for ``denoise``: the rows of the prompts only


def encode_pictures(
    pipe: Pipeline,
    pictures: Sequence[Image.Image],
    prompts: Sequence[str],
    guidance: float = 0.0,
    aspect_ratio: str = "1:1",
    noise_seed: int | None = None,
    negative: str = "",
    **options: Any,
) -> EncodedPictures:
    """Encode pictures of one of the model's sizes as noise, with one prompt per picture.

    noise_seed: None encodes the clean latents, so that decoding returns them exactly. A seed adds
    the noise that the model was trained with, the same to all pictures. The encoding is then as
    typical as random noise, and the decoded latents must be denoised. negative: prompt to use
    instead of the null caption. options: other fields of ``SampleOptions``. Errors: UsageError,
    TextError, NumericsError.
    """
    x = latents_of(pipe, pictures)
    if noise_seed is not None:
        x = with_noise(pipe, x, noise_seed)
    rows = pipe.prompt_rows(prompts, aspect_ratio, negative)
    context, own = rows.for_sampling(prompts, guidance), rows.own(prompts)
    z = encode(pipe.flow, x, context, guidance=guidance, **options).z
    mx.eval(x, z)
    return EncodedPictures(x, z, context, own)


def with_noise(pipe: Pipeline, x: mx.array, seed: int) -> mx.array:
    """Latents (B, h, w, c) plus noise of the model's training level, the same for all rows."""
    return x + pipe.flow.config.noise_std * seeded_noise(x.shape[1:], [seed])


def varied(z: mx.array, strength: float, seeds: Sequence[int]) -> mx.array:
    """Spherical interpolation from noise z (h, w, c) towards the noise of each of B seeds. Returns
    (B, h, w, c). ``strength``: 0 returns z, 1 the noise of the seeds."""
    return mx.stack([slerp(z, fresh, strength) for fresh in seeded_noise(z.shape, seeds)])


def finished(
    pipe: Pipeline, x: mx.array, own: Context, remove_noise: bool
) -> tuple[mx.array, list[Image.Image]]:
    """Samples x (B, h, w, c) -> latents (B, h, w, c), denoised if ``remove_noise``, and their
    pictures. ``own``: context without null captions. Errors: NumericsError."""
    if remove_noise:
        x = denoise(pipe.flow, x, own)
    mx.eval(x)
    check_finite(x, "latent")
    return x, pipe.decode(x)
