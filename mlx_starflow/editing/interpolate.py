"""Pictures on the way from one noise and prompt to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
from PIL import Image

from ..errors import UsageError
from ..exact.sphere import slerp
from ..pipeline import Pipeline
from ..sampling import SampleOptions, invert
from .inputs import contexts_of, picture_sizes
from .vary import encode_pictures, finished

BATCH = 4  # frames drawn together


@dataclass(frozen=True)
class Ends:
    """Where a transition begins and ends."""

    z: tuple[mx.array, mx.array]  # noise (h, w, c)
    contexts: tuple[mx.array | None, mx.array | None]  # one row each: (1, L, D) or (1,) or None
    null: mx.array | None  # the null caption's row, for guidance
    guidance: float


def seeded_ends(
    pipe: Pipeline, seeds: Sequence[int], prompts: Sequence[str], guidance: float
) -> Ends:
    """From the noise of one seed to that of another (or the same), with one or two prompts; as
    ``generate`` draws them in the model's square size."""
    width, height = picture_sizes(pipe)["1:1"]
    vae, channels = pipe.vae, pipe.flow.config.in_channels
    factor = 1 if vae is None else vae.config.factor
    shape = (height // factor, width // factor, channels)
    z = tuple(mx.random.normal(shape, key=mx.random.key(seed)) for seed in seeds)
    return _ends(pipe, z, prompts, guidance, "1:1")


def encoded_ends(
    pipe: Pipeline,
    pictures: Sequence[Image.Image],
    prompts: Sequence[str],
    guidance: float,
    aspect_ratio: str = "1:1",
) -> Ends:
    """From one picture to another, both encoded exactly, each under its prompt (one or two)."""
    both = [prompts[0], prompts[-1]]
    z = encode_pictures(pipe, pictures, both, guidance, aspect_ratio).z
    return _ends(pipe, (z[0], z[1]), prompts, guidance, aspect_ratio)


def _ends(pipe: Pipeline, z, prompts: Sequence[str], guidance: float, aspect_ratio: str) -> Ends:
    rows = contexts_of(pipe, [prompts[0], prompts[-1], ""], aspect_ratio)
    if rows is None:
        if guidance:
            raise UsageError("guidance needs a prompt or a class; this model is unconditional.")
        return Ends(z, (None, None), None, 0.0)
    if pipe.flow.config.num_classes and prompts[0] != prompts[-1]:
        raise UsageError("Nothing lies between two classes of this model; give one.")
    return Ends(z, (rows[0:1], rows[1:2]), rows[2:3], guidance)


def frames_between(
    pipe: Pipeline, ends: Ends, frames: int, remove_noise: bool, sampler: str | None = None
) -> Iterator[Image.Image]:
    """``frames`` pictures evenly spaced on the sphere, both ends included; between two prompts
    the text features change linearly. Errors: UsageError, NumericsError."""
    if frames != int(frames) or frames < 2:
        raise UsageError(f"frames is {frames}; expected a whole number of 2 or more.")
    options = SampleOptions(guidance=ends.guidance, sampler=sampler or pipe.config.defaults.sampler)
    for start in range(0, frames, BATCH):
        places = [i / (frames - 1) for i in range(start, min(start + BATCH, frames))]
        z = mx.stack([slerp(*ends.z, t) for t in places])
        own = None
        if ends.contexts[0] is not None:
            own = mx.concatenate([_between(*ends.contexts, t) for t in places])
        context = own
        if ends.guidance and pipe.flow.config.text_channels:
            context = mx.concatenate([own, mx.repeat(ends.null, len(places), axis=0)])
        x = invert(pipe.flow, z, context, guidance=options.guidance, sampler=options.sampler)
        yield from finished(pipe, x, own, remove_noise)[1]


def _between(a: mx.array, b: mx.array, t: float) -> mx.array:
    if t in (0, 1) or a.ndim == 1:  # labels, which are the same at both ends
        return a if t == 0 else b
    return (1 - t) * a + t * b
