"""Check the arguments of ``Pipeline.generate``: settings, noise and given frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from ..errors import UsageError
from .components import Components
from .draw import noise_shape
from .given import Given, given_pictures
from .settings import Settings, resolve


def request(
    components: Components,
    prompt: str | int | Sequence[str | int] | None,
    seed: int | Sequence[int] | None,
    noise: mx.array | np.ndarray | None,
    image: Given | None = None,
    video: Given | None = None,
    **options: Any,
) -> tuple[Settings, mx.array | None, list[Image.Image]]:
    """The settings with all defaults filled in; the noise (B, h, w, c), for clips (B, N, h, w, c),
    or None if it is made from the seeds; and the pictures that the clips begin with. Loads no
    weights. For the arguments see ``Pipeline.generate``. Errors: UsageError, TextError,
    ImageError."""
    given, clips = given_pictures(image, video), components.config.clips
    if given and clips is None:
        raise UsageError("image and video are for clips; this model makes pictures only.")
    options["given_frames"] = clips.latent_frames(len(given)) if given and clips else 0
    settings = resolve(
        components.config, components.flow_config, components.factor, prompt, seed, **options
    )
    if noise is None:
        return settings, None, given
    noise = np.array(noise, dtype=np.float32)  # evaluates it in the caller's thread
    one = noise_shape(components, settings)
    noise = mx.array(noise[None] if noise.ndim == len(one) else noise)
    shape = (len(settings.prompts), *one)
    if noise.shape != shape:
        what = "pictures" if settings.frames is None else "clips, latent frames"
        raise UsageError(
            f"The noise has shape {tuple(noise.shape)}; this request needs {shape}: "
            f"{what}, height, width and channels of the flow."
        )
    return settings, noise, given
