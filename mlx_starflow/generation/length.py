"""How long a clip is, how fast, and in which windows it is sampled."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import ClipConfig, FlowConfig, ModelConfig
from ..errors import UsageError
from ..flow.grid import check_clips
from ..sampling import SampleOptions
from ..sampling.stretches import stretches

MOST_FRAMES = 1 << 14  # of a clip that is drawn
MOST_FPS = 240


def clips_of(model: ModelConfig, flow: FlowConfig) -> ClipConfig:
    """What a model says of its clips. Errors: UsageError for a model that has none."""
    if model.clips is None:
        raise UsageError(f"{model.name or 'This model'} makes pictures; it has no clips.")
    check_clips(flow)
    return model.clips


def resolve_clip(
    model: ModelConfig,
    flow: FlowConfig,
    frames: int | None,
    fps: int | None,
    extend: bool | None,
    given: int,
) -> dict[str, Any]:
    """The settings of a clip; {} for a picture, which is a clip of one frame.

    ``frames`` is cut to what latent frames make (1, 5, 9, ... for most autoencoders); ``given``:
    latent frames that are given. Errors: UsageError.
    """
    if frames is None and (fps or extend or given):
        raise UsageError("fps, extend and given frames are for clips; give frames.")
    if frames is None:
        return {}
    clips = clips_of(model, flow)
    if frames != int(frames) or not 1 <= frames <= MOST_FRAMES:
        raise UsageError(f"frames is {frames}; expected a whole number from 1 to {MOST_FRAMES}.")
    fps = clips.fps[0] if fps is None else fps
    if fps != int(fps) or not 1 <= fps <= MOST_FPS:
        raise UsageError(f"fps is {fps}; expected a whole number from 1 to {MOST_FPS}.")
    latent = clips.latent_frames(int(frames))
    if given and given >= latent:
        raise UsageError(
            f"{clips.shown_frames(given)} frames are given, and the clip has {frames}: nothing "
            f"would be drawn. Give {clips.shown_frames(given + 1)} frames or more."
        )
    if latent == 1:
        return {}
    shown = clips.shown_frames(latent)
    return {"frames": shown, "fps": int(fps), "extend": bool(extend), "given_frames": given}


def clip_options(
    model: ModelConfig, sample: SampleOptions, frames: int, given: int, asked: dict[str, Any]
) -> SampleOptions:
    """Sampling options with the model's window and a context that fits it, unless ``asked`` says
    otherwise. Errors: UsageError for windows in which nothing new would fit."""
    clips = model.clips
    if clips is None:
        return sample
    window = clips.window if sample.window is None else sample.window
    context = sample.context_frames
    if asked.get("context_frames") is None:
        context = min(context, max(1, window - 1))
    stretches(clips.latent_frames(frames), given, window, context)
    return dataclasses.replace(sample, window=window, context_frames=context)
