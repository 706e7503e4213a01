"""Encoding given pictures and clips as noise, varying the noise, and drawing from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from ..exact.denoise import denoise
from ..exact.encoding import encode
from ..exact.noise import seeded_noise
from ..exact.sphere import slerp
from ..flow import Context
from ..generation.draw import decode_clips, keep_frames
from ..generation.length import clips_of, denoising_window
from ..pictures.arrays import check_finite
from ..pipeline import Pipeline
from .inputs import Frames, latents_of


@dataclass(frozen=True)
class EncodedPictures:
    """Pictures, (B, h, w, c), or clips, (B, N, h, w, c), encoded as noise."""

    x: mx.array  # the latents that were encoded, with noise if it was added
    z: mx.array  # noise of the same shape; invert(flow, z, context, guidance=...) returns x
    context: Context  # for ``invert``
    own: Context  # for ``denoise``: the rows of the prompts only


def encode_pictures(
    pipe: Pipeline,
    pictures: Sequence[Frames],
    prompts: Sequence[str],
    guidance: float = 0.0,
    aspect_ratio: str = "1:1",
    noise_seed: int | None = None,
    negative: str = "",
    fps: int = 0,
    **options: Any,
) -> EncodedPictures:
    """Encode pictures, or equally long clips, of one of the model's sizes as noise, with one prompt
    each.

    noise_seed: None encodes the clean latents, so that decoding returns them exactly. A seed adds
    the noise that the model was trained with, the same to all pictures. The encoding is then as
    typical as random noise, and the decoded latents must be denoised. negative: prompt to use
    instead of the null caption. fps: frames per second of clips. options: other fields of
    ``SampleOptions``; for clips see ``inputs.window_options``. Errors: UsageError, TextError,
    NumericsError.
    """
    x = latents_of(pipe, pictures)
    if noise_seed is not None:
        x = with_noise(pipe, x, noise_seed)
    rows = pipe.prompt_rows(prompts, aspect_ratio, negative, fps)
    context, own = rows.for_sampling(prompts, guidance), rows.own(prompts)
    z = encode(pipe.flow, x, context, guidance=guidance, **options).z
    mx.eval(x, z)
    return EncodedPictures(x, z, context, own)


def with_noise(pipe: Pipeline, x: mx.array, seed: int) -> mx.array:
    """Latents (B, ..., c) plus noise of the model's training level, the same for all rows."""
    return x + pipe.flow.config.noise_std * seeded_noise(x.shape[1:], [seed])


def varied(z: mx.array, strength: float, seeds: Sequence[int]) -> mx.array:
    """Spherical interpolation from noise z (h, w, c), of a clip (N, h, w, c), towards the noise of
    each of B seeds. Returns (B, ..., c). ``strength``: 0 returns z, 1 the noise of the seeds."""
    return mx.stack([slerp(z, fresh, strength) for fresh in seeded_noise(z.shape, seeds)])


def finished(
    pipe: Pipeline, x: mx.array, own: Context, remove_noise: bool
) -> tuple[mx.array, list[Image.Image]]:
    """Samples x (B, h, w, c) -> latents (B, h, w, c), denoised if ``remove_noise``, and their
    pictures. ``own``: context without null captions. Errors: NumericsError."""
    x = _cleaned(pipe, x, own, remove_noise, None)
    return x, pipe.decode(x)


def finished_clips(
    pipe: Pipeline, x: mx.array, own: Context, remove_noise: bool, window: int | None
) -> list[np.ndarray]:
    """Samples x (B, N, h, w, c) -> B clips (M, H, W, 3) uint8, denoised if ``remove_noise``.
    ``window``: latent frames that were sampled in one sequence. Errors: NumericsError,
    UsageError."""
    clips: list[np.ndarray] = []
    known = clips_of(pipe.config, pipe.flow_config)
    piece = denoising_window(known, pipe.flow_config, window, None)
    x, vae = _cleaned(pipe, x, own, remove_noise, piece), pipe.vae

    def decode() -> None:
        for event in decode_clips(vae, known, x):
            keep_frames(clips, event)

    pipe.run(decode)
    return clips


def _cleaned(
    pipe: Pipeline, x: mx.array, own: Context, remove_noise: bool, window: int | None
) -> mx.array:
    if remove_noise:
        x = denoise(pipe.flow, x, own, window=window)
    mx.eval(x)
    check_finite(x, "latent")
    return x
