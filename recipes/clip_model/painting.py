"""Paint the frames of a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..default_model.painter.compose import add_subjects, paint_background
from ..default_model.painter.layout import Layout
from .moving import course_of, darkness_at, layout_at
from .scenes import Clip

_TIMES = ("day", "sunset", "night")  # through which the light changes


class _Painter:
    """Paints a clip's frames; backgrounds and equal frames are painted once."""

    def __init__(self, clip: Clip, size: int):
        self.clip, self.size = clip, size
        self.grounds: dict[str, np.ndarray] = {}
        self.frames: dict[tuple, np.ndarray] = {}

    def at(self, layout: Layout, time: str) -> np.ndarray:
        if (layout, time) not in self.frames:
            scene = replace(self.clip.scene, time=time)
            if time not in self.grounds:
                ground = paint_background(scene, layout, self.size, own_stars=True)
                self.grounds[time] = ground
            self.frames[layout, time] = add_subjects(self.grounds[time], scene, layout)
        return self.frames[layout, time]


def paint_clip(clip: Clip, size: int = 64, frames: int = 17) -> np.ndarray:
    """The clip's frames (frames, size, size, 3) uint8."""
    painter, course = _Painter(clip, size), course_of(clip)
    painted = np.empty((frames, size, size, 3), np.uint8)
    for frame in range(frames):
        layout, dark = layout_at(clip, course, frame), darkness_at(clip, course, frame)
        if dark is None:
            picture = painter.at(layout, clip.scene.time)
        else:
            first = min(1, int(2 * dark))
            share = 2 * dark - first
            before, after = (painter.at(layout, time) for time in _TIMES[first : first + 2])
            picture = before + (after - before) * np.float32(share)
        painted[frame] = np.clip(picture + 0.5, 0, 255)
    return painted
