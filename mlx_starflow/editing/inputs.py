"""The user's input for the flow: pictures to latents, prompts to contexts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

from ..device.wired import wired
from ..flow import Context
from ..generation.length import clips_of
from ..generation.settings import sizes
from ..pictures.arrays import from_picture
from ..pictures.clips import covering
from ..pictures.read import Picture, fitted, in_grey, open_picture
from ..pipeline import Pipeline


def picture_sizes(pipe: Pipeline) -> dict[str, tuple[int, int]]:
    """Aspect ratio "w:h" -> (width, height) in pixels, for all sizes of the model."""
    vae = pipe.vae
    return sizes(pipe.flow.config, 1 if vae is None else vae.config.factor)


def prepared(
    pipe: Pipeline, picture: Picture | Image.Image | str | Path, fit: str = "refuse"
) -> tuple[Picture, str]:
    """A picture, or the file of one, at one of the model's sizes, and its aspect ratio "w:h".

    ``fit``: see ``pictures.read.fitted``. Errors: ImageError if it cannot be read or, with fit
    "refuse", has another size; UsageError.
    """
    known = picture_sizes(pipe)
    if isinstance(picture, (str, Path)):
        picture = open_picture(picture)
    elif isinstance(picture, Image.Image):
        picture = Picture(picture.convert("RGB"), "the picture")
    picture = fitted(picture, list(known.values()), fit)
    if pipe.vae is None and pipe.flow.config.in_channels == 1:
        picture = in_grey(picture)
    return picture, next(r for r, size in known.items() if size == picture.image.size)


@wired()
def latents_of(pipe: Pipeline, pictures: Sequence[Image.Image]) -> mx.array:
    """B pictures of one of the model's sizes -> the data of the flow, without added noise: mean
    latents (B, h, w, c) times the scaling factor, or pixels in [-1, 1] if there is no VAE."""
    vae = pipe.vae
    channels = 3 if vae is not None else pipe.flow.config.in_channels
    rows = []
    for picture in pictures:  # one by one, since a VAE's activations are large
        x = from_picture(picture, channels)
        rows.append(x if vae is None else vae.encode(x))
        mx.eval(rows[-1])
    return mx.concatenate(rows)


def clip_latent(pipe: Pipeline, frames: Sequence[Image.Image], size: tuple[int, int]) -> mx.array:
    """The flow's latent (1, N, h, w, c) of a clip, without noise. Each frame is resized to cover
    ``size``, a size of the model, and its centre is cut out. Frames after the last full step are
    left out. Errors: UsageError for a model of pictures."""
    clips_of(pipe.config, pipe.flow_config)
    pixels = np.stack([np.asarray(covering(f, *size), np.float32) for f in frames])
    x, vae = mx.array(pixels / 127.5 - 1)[None], pipe.vae
    latent = x if vae is None else vae.encode(x)
    mx.eval(latent)
    return latent


def contexts_of(
    pipe: Pipeline, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
) -> Context:
    """One row per prompt ("" is the null caption): text features (P, L, D), int labels (P,), or
    None for an unconditional model, whose prompts must be "". ``fps``: frames per second of clips,
    0 for pictures. Errors: UsageError, TextError."""
    return pipe.prompt_rows(prompts, aspect_ratio, fps=fps).own(prompts)
