"""The error of encoding a latent and decoding it again, by the precision of the flow's weights."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from PIL import Image

from mlx_starflow import invert
from mlx_starflow.editing.vary import encode_pictures
from mlx_starflow.pipeline import Pipeline, load

PRECISIONS: dict[str, dict] = {
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "8 bits": {"quantize": 8},
    "4 bits": {"quantize": 4},
}


def round_trips(
    model: str | None, paintings: np.ndarray, caption: str, guidance: float
) -> dict[str, dict[str, float]]:
    """Largest and root-mean-square error of the latents, with and without guidance, and the root
    mean square of the latents themselves. Decoding uses the sequential sampler."""
    table: dict[str, dict[str, float]] = {}
    for name, options in PRECISIONS.items():
        with load(model, **options) as pipe:
            row = {}
            for title, weight in (("plain", 0.0), ("guided", guidance)):
                x, back = _there_and_back(pipe, paintings, caption, weight)
                row[f"{title}, largest"] = mx.abs(back - x).max().item()
                row[f"{title}, rms"] = mx.sqrt(mx.mean(mx.square(back - x))).item()
            row["latent, rms"] = mx.sqrt(mx.mean(mx.square(x))).item()
        table[name] = row
    return table


def _there_and_back(
    pipe: Pipeline, paintings: np.ndarray, caption: str, guidance: float
) -> tuple[mx.array, mx.array]:
    images = [Image.fromarray(p) for p in paintings]
    made = encode_pictures(pipe, images, [caption] * len(images), guidance)
    back = invert(pipe.flow, made.z, made.context, guidance=guidance, sampler="sequential")
    return made.x, back
