"""The given frames that a clip begins with: a picture or the start of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

from ..errors import UsageError
from ..pictures.arrays import read_picture
from ..pictures.clips import covering, read_clip
from .components import Components
from .settings import Settings

Given = str | Path | Image.Image | np.ndarray | Sequence[Image.Image]


def given_pictures(image: Given | None, video: Given | None) -> list[Image.Image]:
    """The frames of a picture or a clip, which is given as a path, PIL images, or an array of uint8
    (M, H, W, 3) or (H, W, 3); an empty list if neither is given. Errors: UsageError, ImageError."""
    if image is not None and video is not None:
        raise UsageError("image and video both give the beginning of the clip; give one of them.")
    if image is None and video is None:
        return []
    given, name = (image, "image") if image is not None else (video, "video")
    if isinstance(given, str | Path):
        return [read_picture(given)] if name == "image" else read_clip(Path(given))
    if isinstance(given, Image.Image):
        pictures = [given]
    elif isinstance(given, np.ndarray):
        frames = given[None] if given.ndim == 3 else given
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise UsageError(
                f"{name} is an array {given.shape} of {given.dtype}; expected uint8 (M, H, W, 3), "
                "or (H, W, 3) for a picture."
            )
        pictures = [Image.fromarray(frame) for frame in frames]
    else:
        pictures = list(given or ())
    if name == "image" and len(pictures) != 1:
        raise UsageError(f"image holds {len(pictures)} pictures; give a clip as video.")
    if not pictures:
        raise UsageError("video holds no frames.")
    return pictures


def given_latents(
    components: Components, settings: Settings, pictures: list[Image.Image], noise: mx.array
) -> tuple[mx.array, mx.array]:
    """The latent frames (B, n, h, w, c) that the clips of a batch begin with, as they are and with
    training noise.

    Pictures are resized to cover the clip's size and cropped around the centre. The training noise
    is taken from the places of these frames in each clip's noise, which are not used otherwise.
    """
    size = settings.width, settings.height
    frames = np.stack([np.asarray(covering(p, *size), np.float32) for p in pictures])
    pixels = mx.array(frames / 127.5 - 1)[None]
    vae = components.vae
    latents = pixels if vae is None else vae.encode(pixels)
    count, std = latents.shape[1], components.flow_config.noise_std
    clean = mx.broadcast_to(latents, (noise.shape[0], *latents.shape[1:]))
    noisy = clean + std * noise[:, :count]
    mx.eval(clean, noisy)
    return clean, noisy
