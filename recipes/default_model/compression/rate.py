"""Rate and distortion of the codec on paintings.

The files are written completely. To save time, the pictures are restored in batches from the coded
tokens instead of with ``decompress``; the results are equal up to rounding. ``damage.round_trips``
measures whether ``decompress`` decodes the same symbols from the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

from mlx_starflow import codec
from mlx_starflow.codec.pictures import restored_pictures
from mlx_starflow.editing.inputs import contexts_of
from mlx_starflow.flow.grid import Grid
from mlx_starflow.pipeline import Pipeline

from .rivals import psnr

STEPS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4)
_BATCH = 10  # pictures restored at once


def measured(
    pipe: Pipeline, pictures: np.ndarray, steps: tuple[float, ...], log: Path, say=print
) -> list[dict]:
    """Return one row for every picture and step: bytes of the file, of the code and of the ideal
    code, and PSNR in dB.

    log: JSON Lines file of finished rows, from which an interrupted run continues. Rows of other
    weights are ignored.
    """
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    rows = [r for r in rows if r["weights"] == pipe.fingerprint]
    names = [content(p) for p in pictures]
    have = {(r["picture"], r["step"]) for r in rows}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as out:
        for start in range(0, len(pictures), _BATCH):
            chosen = range(start, min(start + _BATCH, len(pictures)))
            for step in steps:
                missing = [i for i in chosen if (names[i], step) not in have]
                for row in _rows(pipe, pictures, missing, step):
                    rows.append(row)
                    out.write(json.dumps(row) + "\n")
                out.flush()
            say(f"{chosen.stop}/{len(pictures)} paintings")
    return [r for r in rows if r["picture"] in names and r["step"] in steps]


def content(pixels: np.ndarray) -> str:
    """A hash of the pixels, which identifies the picture in stored rows."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def _rows(pipe: Pipeline, pictures: np.ndarray, which: list[int], step: float) -> Iterator[dict]:
    made = [codec.compress_picture(pipe, Image.fromarray(pictures[i]), step) for i in which]
    if not made:
        return
    parts = [m.tokens for m in made]
    side = pipe.flow.config.grid_size
    context = contexts_of(pipe, [""] * len(made))
    back = restored_pictures(pipe, mx.concatenate(parts), Grid(side, side), context, made[0].step)
    for i, m, picture in zip(which, made, back, strict=True):
        yield {
            "weights": pipe.fingerprint, "picture": content(pictures[i]), "step": step,
            "bytes": len(m.data), "code": m.code_bytes, "ideal": m.ideal_bytes,
            "portable": m.portable, "seed": m.seed, "psnr": psnr(pictures[i], picture),
        }  # fmt: skip


def by_step(rows: list[dict]) -> dict[str, dict[str, float]]:
    """For each step, means over the pictures, and the excess of the code over the ideal length in
    percent."""
    table = {}
    for step in sorted({r["step"] for r in rows}):
        own = [r for r in rows if r["step"] == step]
        ratio = [r["code"] / r["ideal"] for r in own]
        table[f"step {step:g}"] = {
            "paintings": len(own),
            "bytes": float(np.mean([r["bytes"] for r in own])),
            "PSNR, dB": float(np.mean([r["psnr"] for r in own])),
            "code over ideal, %": 100
            * (sum(r["code"] for r in own) / sum(r["ideal"] for r in own) - 1),
            "worst picture, %": 100 * (max(ratio) - 1),
            "seeds tried": float(np.mean([r["seed"] + 1 for r in own])),
            "portable": float(np.mean([r["portable"] for r in own])),
        }
    return table


def with_captions(
    pipe: Pipeline, pictures: np.ndarray, captions: list[str], steps: tuple[float, ...]
) -> dict[str, dict[str, float]]:
    """For each step, mean bytes of the code and of the whole file, without and with the caption."""
    table = {}
    for step in steps:
        rows = []
        for pixels, caption in zip(pictures, captions, strict=True):
            image = Image.fromarray(pixels)
            plain = codec.compress_picture(pipe, image, step)
            told = codec.compress_picture(pipe, image, step, caption)
            rows.append((plain.code_bytes, told.code_bytes, len(plain.data), len(told.data)))
        names = ("code", "code, caption given", "file", "file, caption in it")
        table[f"step {step:g}"] = {"paintings": len(rows)} | dict(
            zip(names, np.mean(rows, axis=0).tolist(), strict=True)
        )
    return table
