"""Where the subject of a clip is in every frame.

Every motion swings: after about twenty frames it comes to rest and goes back the same way, so that
a clip can be continued for any time. The captions name what happens in the first half of a swing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..default_model.painter.layout import Layout, Spot
from ..default_model.painter.subjects import CENTRE, FLYING_WIDTH, SCALE, WIDTH
from .scenes import Clip, kind_of

_FACES_RIGHT = ("fish", "boat", "car", "train")  # in the painter's drawings; the others: left
_HOP = 8  # frames
_STEP = 4  # frames of two steps of a walk
_ROLLS = ("car", "train")


@dataclass(frozen=True)
class Course:
    """The random choices of one clip."""

    half: float  # frames of half a swing
    middle: float
    reach: float  # of a motion to the side
    height: float
    base: float
    flip: bool
    turn: float


def course_of(clip: Clip) -> Course:
    draw = np.random.default_rng([clip.scene.seed, 3]).random(7).tolist()
    subject, support = clip.scene.subject, kind_of(clip.scene.subject).support
    width = WIDTH[subject] if support != "air" else FLYING_WIDTH.get(subject, WIDTH[subject])
    height = (0.42 + 0.08 * draw[0]) * SCALE.get(subject, 1.0)
    height = min(height, 0.52 / width)
    base = {"ground": 0.90, "water": 0.82, "air": 0.5}[support] + 0.03 * (2 * draw[1] - 1)
    room = 0.5 - 0.5 * width * height
    return Course(
        half=19 + 3 * draw[2],
        middle=0.5 + 0.05 * (2 * draw[3] - 1),
        reach=min(0.31, room + 0.06) - 0.04 * draw[4],
        height=height,
        base=base,
        flip=draw[5] < 0.5,
        turn=2 * draw[6] - 1,
    )


def _swing(course: Course, frame: int) -> tuple[float, float]:
    """The place from 0 to 1 and back, and the speed from -1 to 1."""
    angle = math.pi * frame / course.half
    return (1 - math.cos(angle)) / 2, math.sin(angle)


def _gait(subject: str, support: str, frame: int, walks: bool) -> tuple[float, float]:
    """The lift and the tilt by which the subject sways."""
    if support == "water":
        angle = 2 * math.pi * frame / 10
        return 0.008 * math.sin(angle), (0.08 if subject == "boat" else 0.05) * math.cos(angle)
    if support == "air":
        if subject == "butterfly":
            angle = 2 * math.pi * frame / 6
            return 0.022 * math.sin(angle), 0.14 * math.cos(angle)
        angle = 2 * math.pi * frame / 12
        return 0.012 * math.sin(angle), (0.0 if subject == "rocket" else 0.05) * math.cos(angle)
    if not walks:
        return 0.0, 0.0
    if subject in _ROLLS:
        return 0.006 * (frame % 2), 0.0
    angle = 2 * math.pi * frame / _STEP
    return 0.028 * abs(math.sin(angle)), 0.09 * math.sin(angle)


def spot_at(clip: Clip, course: Course, frame: int) -> Spot:
    """The subject's place and pose."""
    subject, motion = clip.scene.subject, clip.motion
    support = kind_of(subject).support
    place, speed = _swing(course, frame)
    sideways = motion in ("left", "right")
    x, base, height, flip, turn = (
        course.middle, course.base, course.height, course.flip, course.turn,
    )  # fmt: skip
    lift, tilt = _gait(subject, support, frame, sideways or motion in ("nearer", "away"))
    if sideways:
        sign = 1 if motion == "right" else -1
        x = 0.5 + sign * course.reach * (2 * place - 1)
        to_right = sign * speed > 0 or (speed == 0 and sign > 0)
        right_faced = subject in _FACES_RIGHT
        flip, turn = to_right != right_faced, 1.0 if right_faced else -1.0
        if subject == "rocket":
            tilt += (-0.9 if to_right else 0.9) * min(1.0, 0.35 + abs(speed))
    elif motion in ("nearer", "away"):
        near = place if motion == "nearer" else 1 - place
        wanted = course.height * (0.55 + 0.9 * near)
        height = min(wanted, 0.9 / WIDTH[subject])
        far = {"ground": 0.72, "water": 0.62, "air": 0.5}[support]
        base = far + (course.base + 0.04 * (support != "air") - far) * near
        turn, lift = 0.0, lift * height / course.height
    elif motion == "jump":
        lift += 0.2 * abs(math.sin(math.pi * frame / _HOP)) + (0.05 if support == "water" else 0)
    elif motion in ("rise", "sink"):
        up = place if motion == "rise" else 1 - place
        base = course.base + 0.29 * (1 - 2 * up)
    if support == "air":
        base += height / 2
        x += math.sin(tilt) * height / 2
    x -= CENTRE.get(subject, 0.0) * height * (-1 if flip else 1)
    return Spot(x, base - lift, height, flip, tilt, turn)


def layout_at(clip: Clip, course: Course, frame: int) -> Layout:
    return Layout((spot_at(clip, course, frame),), kind_of(clip.scene.subject).support)


def darkness_at(clip: Clip, course: Course, frame: int) -> float | None:
    """0 by day to 1 at night; None where the light does not change."""
    if clip.motion not in ("darker", "lighter"):
        return None
    place, _ = _swing(course, frame)
    return place if clip.motion == "darker" else 1 - place
