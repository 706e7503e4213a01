"""The length and frame rate of a clip, and the windows in which it is sampled and denoised."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import ClipConfig, FlowConfig, ModelConfig
from ..errors import UsageError
from ..flow.grid import check_clips
from ..sampling import SampleOptions
from ..sampling.stretches import stretches

MOST_FRAMES = 1 << 14  # most frames of a clip that is drawn
MOST_FPS = 240


def clips_of(model: ModelConfig, flow: FlowConfig) -> ClipConfig:
    """A model's settings of clips. Errors: UsageError for a model of pictures only."""
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
    """The settings of a clip; {} for a picture: without ``frames``, or for one latent frame.

    ``frames`` is rounded down to the length of a whole number of latent frames (1, 5, 9, ... for
    most autoencoders). ``given``: number of given latent frames. Errors: UsageError.
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
            f"{clips.shown_frames(given)} frames are given, and the clip has {frames}, so no frame "
            f"would be drawn. Set frames to {clips.shown_frames(given + 1)} or more."
        )
    if latent == 1:
        return {}
    shown = clips.shown_frames(latent)
    return {"frames": shown, "fps": int(fps), "extend": bool(extend), "given_frames": given}


def clip_options(
    model: ModelConfig, sample: SampleOptions, frames: int, given: int, asked: dict[str, Any]
) -> SampleOptions:
    """The sampling options with the model's window, unless ``sample`` has one, and with context
    frames that fit into it, unless ``asked`` sets their number. Errors: UsageError for a window in
    which no new frame would fit."""
    clips = model.clips
    if clips is None:
        return sample
    window = clips.window if sample.window is None else sample.window
    context = sample.context_frames
    if asked.get("context_frames") is None:
        context = min(context, max(1, window - 1))
    stretches(clips.latent_frames(frames), given, window, context)
    return dataclasses.replace(sample, window=window, context_frames=context)


def denoising_window(
    clips: ClipConfig, flow: FlowConfig, window: int | None, method: str | None
) -> int:
    """Latent frames of a clip that are denoised at a time.

    The learned denoiser takes as many as in its training, whatever ``window`` the clip is sampled
    in; the score of the flow takes those of that window. Either is more than the frames of context
    (``denoiser_window``) that a piece begins with. ``method``: as for ``denoise``.
    """
    learned = flow.denoiser is not None and method != "score"
    frames = clips.window if learned or window is None else window
    return max(frames, (flow.denoiser_window or 0) + 1)
