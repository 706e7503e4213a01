"""A program that paints small picture-book scenes with captions from seeds."""

from .captions import caption, vocabulary
from .compose import paint
from .scene import (
    COLOURS,
    COUNTS,
    PLACES,
    SIZES,
    SPARE_SUBJECTS,
    SUBJECTS,
    TIMES,
    WEATHERS,
    Scene,
    random_scene,
)
from .shards import paint_many, write_shards
from .words import understood

__all__ = [
    "COLOURS",
    "COUNTS",
    "PLACES",
    "SIZES",
    "SPARE_SUBJECTS",
    "SUBJECTS",
    "TIMES",
    "WEATHERS",
    "Scene",
    "caption",
    "paint",
    "paint_many",
    "random_scene",
    "understood",
    "vocabulary",
    "write_shards",
]
