"""Given pictures as noise, and pictures from noise again: with what the flow is told about them."""

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
    """Pictures and the noise that the sampler would have drawn them from."""

    x: mx.array  # (B, h, w, c) latents as encoded, with the noise that was added to them
    z: mx.array  # (B, h, w, c) noise; invert(flow, z, context, guidance=...) = x
    context: Context  # as ``invert`` takes it
    own: Context  # the rows of the prompts alone, as ``denoise`` takes it


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
    """Pictures of a size of the model, one prompt each, as noise.

    noise_seed: None encodes the clean latents, from which decoding returns them exactly. A seed
    adds the noise that the model was trained with, the same draw to all: the result is then as
    typical as fresh noise is, and decoding has to be followed by denoising. ``negative`` stands in
    for the null caption; ``options`` are further fields of ``SampleOptions``.
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
    """Latents (B, h, w, c) with the noise that the model was trained with, one draw for all."""
    return x + pipe.flow.config.noise_std * seeded_noise(x.shape[1:], [seed])


def varied(z: mx.array, strength: float, seeds: Sequence[int]) -> mx.array:
    """Noise z (h, w, c) turned by ``strength`` of the way (0 ... 1) to fresh noise of each seed:
    (B, h, w, c). 0 is z itself; 1 forgets it."""
    return mx.stack([slerp(z, fresh, strength) for fresh in seeded_noise(z.shape, seeds)])


def finished(
    pipe: Pipeline, x: mx.array, own: Context, remove_noise: bool
) -> tuple[mx.array, list[Image.Image]]:
    """Samples x (B, h, w, c) as the flow gave them -> their denoised latents (or x) and pictures.
    Errors: NumericsError."""
    if remove_noise:
        x = denoise(pipe.flow, x, own)
    mx.eval(x)
    check_finite(x, "latent")
    return x, pipe.decode(x)
