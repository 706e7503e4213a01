"""The user's input for the flow: pictures to latents, prompts to contexts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from PIL import Image

from ..device.wired import wired
from ..errors import ImageError, UsageError
from ..flow import Context
from ..generation.length import clip_options, clips_of
from ..generation.settings import sizes
from ..pictures.arrays import from_picture
from ..pictures.clips import is_clip, read_clip
from ..pictures.read import Picture, fitted, in_grey, open_picture
from ..pipeline import Pipeline
from ..sampling import SampleOptions

Frames = Image.Image | Sequence[Image.Image]  # a picture, or the frames of a clip


@dataclass(frozen=True)
class Source:
    """A picture, or the frames of a clip, at one of the model's sizes."""

    frames: tuple[Image.Image, ...]  # one for a picture
    aspect_ratio: str  # "w:h"
    path: str
    notes: tuple[str, ...] = ()  # changes, phrased to follow "it was"

    @property
    def is_clip(self) -> bool:
        return len(self.frames) > 1

    @property
    def content(self) -> Frames:
        """As ``latents_of`` takes it."""
        return self.frames if self.is_clip else self.frames[0]

    @property
    def digest(self) -> str:
        """The SHA-256 of sizes and pixels."""
        return digest(self.frames)


def digest(frames: Sequence[Image.Image]) -> str:
    """The SHA-256 of the sizes and pixels of frames."""
    whole = hashlib.sha256()
    for frame in frames:
        whole.update(repr(frame.size).encode() + frame.convert("RGB").tobytes())
    return whole.hexdigest()


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


def source_of(pipe: Pipeline, path: Path, fit: str = "refuse") -> Source:
    """The picture or clip in a file or folder, at one of the model's sizes. ``fit``: as for
    ``prepared``. Errors: ImageError, UsageError; a clip for a model of pictures is one."""
    if not is_clip(path):
        picture, ratio = prepared(pipe, path, fit)
        return Source((picture.image,), ratio, str(path), picture.notes)
    if pipe.config.clips is None:
        raise UsageError(
            f"{path} is a clip, and {pipe.config.name or 'this model'} makes pictures; name a "
            "picture, such as one of its frames."
        )
    return prepared_clip(pipe, read_clip(path), str(path), fit)


def prepared_clip(
    pipe: Pipeline, frames: Sequence[Image.Image], path: str, fit: str = "refuse"
) -> Source:
    """A clip at one of the model's sizes. Frames after the last full step of the autoencoder are
    left out. ``path``: for messages. Errors: ImageError for frames of several sizes, or of another
    size than the model's if ``fit`` is "refuse"; UsageError for a model of pictures."""
    clips = clips_of(pipe.config, pipe.flow_config)
    known = sorted({frame.size for frame in frames})
    if len(known) > 1:
        listing = ", ".join(f"{w}x{h}" for w, h in known[:4])
        raise ImageError(f"{path}: its frames have several sizes ({listing}); scale them to one.")
    kept = clips.shown_frames(clips.latent_frames(len(frames)))
    first, ratio = prepared(pipe, Picture(frames[0].convert("RGB"), path), fit)
    rest = [Picture(frame.convert("RGB"), path) for frame in frames[1:kept]]
    whole = (first, *(fitted(frame, [first.image.size], fit) for frame in rest))
    cut = (f"cut from {len(frames)} to {kept} frames",) if kept < len(frames) else ()
    return Source(tuple(f.image for f in whole), ratio, path, first.notes + cut)


def window_options(pipe: Pipeline, source: Source, asked: dict[str, Any]) -> dict[str, Any]:
    """``window`` and ``context_frames`` for a clip, as arguments of the samplers: those in
    ``asked``, else the model's; {} for a picture. Errors: UsageError if they do not fit."""
    return clip_window(pipe, len(source.frames) if source.is_clip else None, asked, source.path)


def clip_window(
    pipe: Pipeline, frames: int | None, asked: dict[str, Any], what: str
) -> dict[str, Any]:
    """The same for a number of frames. ``what``: of the picture, for messages."""
    known = ("window", "context_frames")
    own: dict[str, Any] = {name: asked[name] for name in known if name in asked}
    if frames is None:
        if own:
            raise UsageError(f"{' and '.join(own)}: these are for clips; {what} is a picture.")
        return {}
    sample = clip_options(pipe.config, SampleOptions(**own), frames, 0, own)
    return {"window": sample.window, "context_frames": sample.context_frames}


@wired()
def latents_of(pipe: Pipeline, pictures: Sequence[Frames]) -> mx.array:
    """B pictures of one of the model's sizes -> the data of the flow, without added noise: mean
    latents (B, h, w, c) times the scaling factor, or pixels in [-1, 1] if there is no VAE. B clips,
    equally long -> (B, N, h, w, c)."""
    vae = pipe.vae
    channels = 3 if vae is not None else pipe.flow.config.in_channels
    rows = []
    for picture in pictures:  # one by one, since a VAE's activations are large
        if isinstance(picture, Image.Image):
            x = from_picture(picture, channels)
        else:
            x = mx.concatenate([from_picture(frame, channels) for frame in picture])[None]
        rows.append(x if vae is None else vae.encode(x))
        mx.eval(rows[-1])
    return mx.concatenate(rows)


def contexts_of(
    pipe: Pipeline, prompts: Sequence[str], aspect_ratio: str = "1:1", fps: int = 0
) -> Context:
    """One row per prompt ("" is the null caption): text features (P, L, D), int labels (P,), or
    None for an unconditional model, whose prompts must be "". ``fps``: frames per second of clips,
    0 for pictures. Errors: UsageError, TextError."""
    return pipe.prompt_rows(prompts, aspect_ratio, fps=fps).own(prompts)
