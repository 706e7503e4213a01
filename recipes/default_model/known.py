"""Held-out paintings of scenes that a bundle can draw, with captions in words that it knows.

The painter paints more subjects, and its captions have more words, than an older bundle was trained
on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from .painter import Scene, caption, paint, random_scene, understood

_PHRASINGS = 20  # captions that are tried for each scene


def read_vocabulary(bundle: Path) -> dict:
    return json.loads((bundle / "vocabulary.json").read_text())


def scenes_and_captions(
    count: int, vocabulary: dict, seed: int, *, full: bool = False
) -> tuple[list[Scene], list[str]]:
    """Scenes and a caption of each, with only words of a bundle's ``vocabulary.json``.

    ``seed`` must differ from those of the training. ``full``: every caption names the place, and
    the colour if the subject does not have its natural one.
    """
    shown = {name: set(vocabulary[name]) for name in ("subject", "place", "colour")}
    words, scenes, captions = set(vocabulary["words"]), [], []
    i = 0
    while len(scenes) < count:
        rng = np.random.default_rng([seed, i])
        i += 1
        scene = random_scene(rng)
        if not {scene.subject, scene.place} <= shown["subject"] | shown["place"]:
            continue
        if scene.colour is not None and scene.colour not in shown["colour"]:
            continue
        phrasings = (caption(scene, rng) for _ in range(_PHRASINGS))
        sayable = (text for text in phrasings if words.issuperset(re.findall(r"\w+", text)))
        chosen = (text for text in sayable if not full or _is_full(scene, text))
        if text := next(chosen, None):
            scenes.append(scene)
            captions.append(text)
    return scenes, captions


def _is_full(scene: Scene, text: str) -> bool:
    said = understood(text)
    place = scene.place.replace(" ", "") in said
    return place and (scene.colour is None or scene.colour in said)


def paint_all(scenes: list[Scene], size: int) -> np.ndarray:
    """uint8 pictures (N, size, size, 3)."""
    return np.stack([np.asarray(paint(scene, size)) for scene in scenes])


def paint_known(pipe, count: int, seed: int) -> tuple[np.ndarray, list[str], list[Scene]]:
    """Paint scenes that the pipeline's bundle can draw, at its size: uint8 pictures
    (N, H, W, 3), captions and scenes."""
    scenes, captions = scenes_and_captions(count, read_vocabulary(pipe.directory), seed)
    return paint_all(scenes, pipe.config.image_size), captions, scenes
