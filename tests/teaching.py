"""Folders of pictures to learn from, trainings on them, and adapters made of random numbers."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

from mlx_starflow.adapters.files import CONFIG, WEIGHTS, AdapterConfig, expected
from mlx_starflow.adapters.saving import write_arrays, write_object
from mlx_starflow.generation.components import Components
from mlx_starflow.training.events import Ended, Stepped
from mlx_starflow.training.options import TrainOptions
from mlx_starflow.training.run import Task, train

PLAIN = dict(
    iters=8, batch_size=2, steps_per_eval=3, save_every=4, lora_rank=4, flip=True, shifts=1
)
MOVING = dict(learning_rate=3e-3, warmup=2)  # the weights really change
ONE_STEP = ("--iters", 1, "--batch-size", 2, "--steps-per-eval", 1, "--previews", 0)
QUICK = ("--iters", 6, "--batch-size", 2, "--steps-per-eval", 3, "--previews", 0, "--lora-rank", 4)


def pictures(folder: Path, count: int = 8, side: int = 12, captions: bool = True) -> Path:
    """Pictures of one style, half red and half green, each with a caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(4)
    for i in range(count):
        pixels = rng.integers(0, 60, (side, side, 3))
        pixels[:, side // 2 :, i % 2] = 220
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
        if captions:
            (folder / f"{i:02d}.txt").write_text(("red", "green")[i % 2])
    return folder


def followed(bundle, data, place, stop_after=None, resume=False, load=None, previews=0, **changes):
    """Events of a training of a bundle, or of components; ``stop_after`` steps it is asked to
    stop."""
    components = bundle
    if not isinstance(bundle, Components):
        components = Components(bundle, str(bundle), **(load or {}))
    task = Task(data, place, previews=previews, resume=resume)
    events, steps = [], [0]
    options = TrainOptions(**{**PLAIN, **changes})
    for event in train(components, task, options, lambda: stop_after == steps[0]):
        steps[0] += isinstance(event, Stepped)
        events.append(event)
    return events


def summary(events):
    return events[-1].summary if isinstance(events[-1], Ended) else None


def finished(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def adapter(bundle: Path, folder: Path, size: float = 0.3, seed: int = 0, **changes) -> Path:
    """An adapter for a bundle that changes its pictures, made of random numbers."""
    components = Components(bundle, str(bundle))
    config = AdapterConfig(components.base, **{"rank": 2, **changes})
    shapes = expected(config, components.flow_config)
    keys = mx.random.split(mx.random.key(seed), len(shapes))
    arrays = {
        name: size * mx.random.normal(shape, key=key) + (1.0 if name.endswith(".m") else 0.0)
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }
    write_object(folder / CONFIG, config.to_dict())
    write_arrays(folder / WEIGHTS, arrays, {})
    return folder
