"""Paint a scene: sky, place, support of the subject, subject, weather."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from .layout import Layout, plan
from .palette import SCENERY_LIGHT, SUBJECT_LIGHT, coat_of
from .pen import Pen
from .places import HORIZON, paint_place
from .scene import Scene
from .sky import clouds, sky, stars, sun_or_moon
from .subjects import WIDTH, draw_subject
from .weather import lay_weather

_SUPERSAMPLE = 3
_DAY_CLOUD = ((204, 220, 238), (252, 253, 255))


@lru_cache(maxsize=4)
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    centres = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return centres[None, :], centres[:, None]


def _carry(pen: Pen, scene: Scene, layout: Layout) -> None:
    """Island, cloud or puddle under the subjects."""
    left = min(s.x - WIDTH[scene.subject] * s.height * 0.5 for s in layout.spots)
    right = max(s.x + WIDTH[scene.subject] * s.height * 0.5 for s in layout.spots)
    x, half = (left + right) / 2, (right - left) / 2
    y = max(s.base for s in layout.spots)
    if layout.support == "island":
        pen.oval(x, y + 0.045, half + 0.13, 0.085, (150, 214, 230))
        pen.oval(x, y + 0.025, half + 0.09, 0.075, (206, 170, 108))
        pen.oval(x, y + 0.01, half + 0.08, 0.065, (244, 218, 156))
    elif layout.support == "cloud":
        night = scene.place == "night sky"
        under, over = ((150, 144, 196), (206, 200, 234)) if night else _DAY_CLOUD
        for k in np.linspace(-1, 1, 5):
            pen.oval(x + k * half, y + 0.07, 0.15, 0.10, under, lit=night)
        for k in np.linspace(-1, 1, 5):
            pen.oval(x + k * (half - 0.02), y + 0.045, 0.13, 0.075, over, lit=night)
    elif layout.support == "puddle":
        lift = 0.05 if scene.subject == "fish" else -0.015
        pen.oval(x, y + lift + 0.008, half + 0.07, 0.075, (206, 236, 244))
        pen.oval(x, y + lift + 0.012, half + 0.055, 0.062, (70, 160, 212))


def _background(
    scene: Scene, layout: Layout, size: int, rng: np.random.Generator, for_stars=None
) -> Image.Image:
    side, deep, horizon = size * _SUPERSAMPLE, scene.place == "night sky", HORIZON[scene.place]
    image = sky(side, scene.time, scene.weather, deep, horizon)
    pen = Pen(image, light=SCENERY_LIGHT["night" if deep else scene.time])
    if deep:
        stars(pen, rng, 42, 1.0)
    elif scene.time == "night" and scene.weather == "clear":
        stars(pen, for_stars or rng, 12, horizon * 0.8)
    x = 0.16 + 0.14 * rng.random()
    sun_or_moon(pen, scene.time, scene.weather, x if rng.random() < 0.5 else 1 - x, deep, horizon)
    if not deep or scene.weather != "clear":
        clouds(pen, rng, scene.weather, scene.time, deep)
    paint_place(pen, scene.place, rng, scene.time)
    _carry(pen, scene, layout)
    return image.reduce(_SUPERSAMPLE)


def _subjects(scene: Scene, layout: Layout, size: int) -> Image.Image:
    side = size * _SUPERSAMPLE
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    coat = coat_of(scene.subject, scene.colour)
    shines = scene.place == "night sky" or scene.subject == "star"
    light = SUBJECT_LIGHT["day" if shines else scene.time]
    for spot in layout.spots:
        pen = Pen(
            image,
            (spot.x * side, spot.base * side),
            spot.height * side,
            spot.flip,
            spot.tilt,
            up=True,
            light=light,
        )
        draw_subject(pen, scene.subject, coat, spot.turn, layout.flying, scene.time == "night")
    return image.reduce(_SUPERSAMPLE)


def _shift(field: np.ndarray, step: int) -> np.ndarray:
    return np.roll(field, (step, step), (0, 1))


def _contact_shadow(picture: np.ndarray, scene: Scene, layout: Layout) -> np.ndarray:
    """Darken the ground softly under each subject."""
    x, y = _grid(picture.shape[0])
    strength = 0.42 if layout.support in ("ground", "island") else 0.22
    shade = np.zeros(picture.shape[:2], np.float32)
    for spot in layout.spots:
        half = WIDTH[scene.subject] * spot.height * 0.52
        centre = 0.93 if layout.support == "air" else spot.base
        if layout.support == "air" and scene.place in ("sky", "night sky"):
            continue
        reach = ((x - spot.x) / half) ** 2 + ((y - centre) / (0.12 * spot.height)) ** 2
        np.maximum(shade, np.clip(1 - reach, 0, 1), out=shade)
    tint = np.asarray((0.9, 0.85, 0.6), np.float32)
    return picture * (1 - strength * shade[:, :, None] * tint)


def _merge(picture: np.ndarray, subject: Image.Image, height: float) -> np.ndarray:
    """Add the subject to the picture, with a lit and a dark side and a soft contrasting rim."""
    size = picture.shape[0]
    layer = np.asarray(subject, np.float32)
    alpha = layer[:, :, 3:] / 255
    band = subject.getchannel("A")
    soft = np.asarray(band.filter(ImageFilter.GaussianBlur(height * size * 0.07)), np.float32) / 255
    near = np.asarray(band.filter(ImageFilter.GaussianBlur(size * 0.011)), np.float32) / 255
    step = max(1, round(height * size * 0.06))
    side = (_shift(soft, -step) - _shift(soft, step))[:, :, None]
    colour = layer[:, :, :3]
    colour = colour * (1 + 0.55 * np.minimum(side, 0)) + (255 - colour) * 0.34 * np.maximum(side, 0)
    weight = alpha.sum() + 1e-6
    behind = float((picture * alpha).sum() / (3 * weight))
    own = float((colour * alpha).sum() / (3 * weight))
    # Dark subjects on dark ground get a light rim, all others a dark one.
    light_rim = behind < 105 and own < 150
    rim = np.asarray((214, 222, 255), np.float32) if light_rim else picture * 0.35
    strength = 0.55 if abs(behind - own) < 60 else 0.38
    halo = (np.clip(near * 1.6, 0, 1) * (0.42 if light_rim else strength))[:, :, None]
    picture = picture + (rim - picture) * halo
    return picture + (colour - picture) * alpha


def _glow(picture: np.ndarray, layout: Layout) -> np.ndarray:
    """Soft light around each star."""
    x, y = _grid(picture.shape[0])
    for spot in layout.spots:
        reach = ((x - spot.x) ** 2 + (y - spot.base + spot.height / 2) ** 2) / (
            spot.height * 0.75
        ) ** 2
        picture = picture + (255 - picture) * (0.45 * np.clip(1 - reach, 0, 1))[:, :, None]
    return picture


def _front_water(picture: np.ndarray, scene: Scene, layout: Layout) -> np.ndarray:
    """Paint water over the lower part of floating subjects."""
    x, y = _grid(picture.shape[0])
    night = scene.time == "night"
    water = np.asarray((20, 50, 100) if night else (40, 124, 188), np.float32)
    foam = np.asarray((110, 140, 190) if night else (196, 230, 240), np.float32)
    lift = 0.055 if scene.subject == "boat" else 0.02
    line = max(s.base for s in layout.spots) - lift + 0.008 * np.sin(x * 40)
    depth = np.clip((y - line) * 60, 0, 1) * np.clip(1 - (y - line) / 0.2, 0, 1)
    picture = picture + (water - picture) * (0.8 * depth)[:, :, None]
    crest = np.exp(-(((y - line) / 0.008) ** 2))
    near = np.zeros_like(x)
    for spot in layout.spots:
        half = 0.75 * WIDTH[scene.subject] * spot.height
        near = np.maximum(near, np.clip(1.3 - np.abs(x - spot.x) / half, 0, 1))
    return picture + (foam - picture) * (0.7 * crest * near)[:, :, None]


def paint_background(
    scene: Scene, layout: Layout, size: int, own_stars: bool = False
) -> np.ndarray:
    """The picture (size, size, 3) without its subjects: sky, place and their support.

    ``own_stars``: draw the stars with other random numbers, so that a land has the same shape by
    day and at night.
    """
    rng = np.random.default_rng([scene.seed, 2])
    for_stars = np.random.default_rng([scene.seed, 4]) if own_stars else None
    return np.asarray(_background(scene, layout, size, rng, for_stars), np.float32)


def add_subjects(picture: np.ndarray, scene: Scene, layout: Layout) -> np.ndarray:
    """The background with the subjects of a layout, without weather; (size, size, 3) float32."""
    if layout.support not in ("water",):
        picture = _contact_shadow(picture, scene, layout)
    if scene.subject == "star":
        picture = _glow(picture, layout)
    subjects = _subjects(scene, layout, picture.shape[0])
    picture = _merge(picture, subjects, layout.spots[0].height)
    if layout.support == "water":
        picture = _front_water(picture, scene, layout)
    return picture


def paint(scene: Scene, size: int = 128) -> Image.Image:
    """Paint the scene as an RGB picture of size x size pixels; the result is deterministic."""
    layout = plan(scene, np.random.default_rng([scene.seed, 1]))
    picture = add_subjects(paint_background(scene, layout, size), scene, layout)
    picture = lay_weather(picture, scene.weather, scene.time, scene.seed)
    return Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))
