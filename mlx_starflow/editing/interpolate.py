"""Interpolation: pictures or clips between two noises and two prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from ..errors import UsageError
from ..exact.noise import seeded_noise
from ..exact.sphere import slerp
from ..flow import Context
from ..generation.context import PromptRows
from ..generation.length import clips_of
from ..pipeline import Pipeline
from ..sampling import BlockResult, SampleOptions, invert_steps
from .inputs import Frames, picture_sizes
from .vary import encode_pictures, finished, finished_clips

BATCH = 4  # pictures in one batch; clips are drawn one by one


@dataclass(frozen=True)
class Ends:
    """The two ends of an interpolation."""

    z: tuple[mx.array, mx.array]  # noise, (h, w, c) each, of clips (N, h, w, c)
    prompts: tuple[str, str]
    rows: PromptRows
    guidance: float
    window: dict[str, Any] = field(default_factory=dict)  # of clips, see inputs.clip_window

    def own(self, places: Sequence[float]) -> Context:
        """The context (B, L, D) or (B,) at B places from 0 to 1. Text features are interpolated
        linearly."""
        both = self.rows.own(self.prompts)
        if both is None:
            return None
        if both.ndim == 1:  # labels, the same at both ends
            return mx.repeat(both[:1], len(places))
        t = mx.array(list(places))[:, None, None]
        return (1 - t) * both[:1] + t * both[1:]


def seeded_ends(
    pipe: Pipeline,
    seeds: Sequence[int],
    prompts: Sequence[str],
    guidance: float,
    frames: int | None = None,
    fps: int = 0,
    **window: Any,
) -> Ends:
    """The ends for two seeds and one or two prompts, in the model's square size: the noise is that
    of ``generate`` for these seeds. For clips: ``frames`` and ``fps`` of each, and ``window`` as
    from ``inputs.clip_window``. Errors: UsageError, TextError."""
    width, height = picture_sizes(pipe)["1:1"]
    vae, channels = pipe.vae, pipe.flow.config.in_channels
    factor = 1 if vae is None else vae.config.factor
    shape: tuple[int, ...] = (height // factor, width // factor, channels)
    if frames is not None:
        shape = (clips_of(pipe.config, pipe.flow_config).latent_frames(frames), *shape)
    z = seeded_noise(shape, seeds)
    return _ends(pipe, (z[0], z[1]), prompts, guidance, "1:1", fps, window)


def encoded_ends(
    pipe: Pipeline,
    pictures: Sequence[Frames],
    prompts: Sequence[str],
    guidance: float,
    aspect_ratio: str = "1:1",
    fps: int = 0,
    **window: Any,
) -> Ends:
    """The ends for two pictures or two clips, encoded exactly, and one or two prompts; ``fps`` and
    ``window`` as for ``seeded_ends``. Errors: UsageError, TextError, NumericsError."""
    both = [prompts[0], prompts[-1]]
    z = encode_pictures(pipe, pictures, both, guidance, aspect_ratio, fps=fps, **window).z
    return _ends(pipe, (z[0], z[1]), prompts, guidance, aspect_ratio, fps, window)


def _ends(
    pipe: Pipeline,
    z: tuple[mx.array, mx.array],
    prompts: Sequence[str],
    guidance: float,
    aspect_ratio: str,
    fps: int,
    window: dict[str, Any],
) -> Ends:
    both = (prompts[0], prompts[-1])
    rows = pipe.prompt_rows(both, aspect_ratio, fps=fps)
    if rows.rows is None and guidance:
        raise UsageError("guidance needs a prompt or a class; this model is unconditional.")
    if pipe.flow.config.num_classes and both[0] != both[1]:
        raise UsageError("This model cannot interpolate between two classes; give one class.")
    return Ends(z, both, rows, guidance, window)


@dataclass(frozen=True)
class Frame:
    """One of the pictures or clips, and how the sampler ended."""

    image: Image.Image  # of a clip, the first frame
    converged: bool
    residual: float | None  # the largest of the batch that it was drawn in, if measured
    clip: np.ndarray | None = None  # (M, H, W, 3) uint8; None: a picture


def frames_between(
    pipe: Pipeline, ends: Ends, frames: int, remove_noise: bool, sampler: str | None = None
) -> Iterator[Frame]:
    """Yields ``frames`` pictures or clips, evenly spaced by spherical interpolation of the noise,
    both ends included. Text features are interpolated linearly. ``remove_noise``: denoise the
    samples. Errors: UsageError, NumericsError."""
    if frames != int(frames) or frames < 2:
        raise UsageError(f"frames is {frames}; expected a whole number of 2 or more.")
    options = SampleOptions(
        guidance=ends.guidance, sampler=sampler or pipe.config.defaults.sampler, **ends.window
    )
    clips = ends.z[0].ndim == 4
    batch = 1 if clips else BATCH
    for start in range(0, frames, batch):
        places = [i / (frames - 1) for i in range(start, min(start + batch, frames))]
        z = mx.stack([slerp(*ends.z, t) for t in places])
        own = ends.own(places)
        guided = own is not None and ends.rows.is_text and ends.guidance > 0
        context = ends.rows.guided(own) if own is not None and guided else own
        steps = invert_steps(pipe.flow, z, context, options)
        done = [step for step in steps if isinstance(step, BlockResult)]
        residuals = [b.report.residual for b in done if b.report.residual is not None]
        converged = all(block.report.converged for block in done)
        x, residual = done[-1].x, max(residuals, default=None)
        if clips:
            for clip in finished_clips(pipe, x, own, remove_noise, options.window):
                yield Frame(Image.fromarray(clip[0]), converged, residual, clip)
            continue
        for image in finished(pipe, x, own, remove_noise)[1]:
            yield Frame(image, converged, residual)
