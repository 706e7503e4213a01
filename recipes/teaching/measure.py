"""Measure the effect of an adapter: bits per dimension by scale, and samples for the classifier."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.editing.inputs import latents_of
from mlx_starflow.pictures.sheet import contact_sheet
from mlx_starflow.training.trainer import VALID_KEY

from .styles import STYLES, draw_all, scenes, vocabulary

SCALES = (0.0, 0.5, 1.0)
DRAWS, BATCH = 4, 8  # noise draws; pictures per pass
JUDGED = 64  # side of classified pictures
PROMPTS_SEED = 901


def bits(pipe: sf.Pipeline, latents: mx.array, context: mx.array) -> np.ndarray:
    """Bits per dimension (N,) of clean latents with the model's noise, averaged over noise
    draws."""
    found = []
    for draw in range(DRAWS):
        noise = mx.random.normal(latents.shape, key=mx.random.key(VALID_KEY + draw))
        x = latents + pipe.flow.config.noise_std * noise
        rows = [slice(i, i + BATCH) for i in range(0, len(x), BATCH)]
        log_p = mx.concatenate([sf.log_prob(pipe.flow, x[r], context[r]) for r in rows])
        found.append(-np.array(log_p) / latents[0].size / math.log(2))
    return np.mean(found, axis=0)


def tell_bits(adapter: str, folders: list[Path]) -> None:
    """Print a line for each folder and scale: bits per dimension, and the change from scale 0 with
    its standard error."""
    with sf.load() as pipe:
        for folder in folders:
            paths = sorted(folder.glob("*.png"))
            latents = latents_of(pipe, [Image.open(p).convert("RGB") for p in paths])
            context = pipe.encode_prompts([p.with_suffix(".txt").read_text() for p in paths])
            base = None
            for scale in SCALES:
                pipe.set_adapters([(adapter, scale)])
                found = bits(pipe, latents, context)
                base = found if base is None else base
                moved = found - base
                error = moved.std(ddof=1) / math.sqrt(len(moved))
                change = f"{moved.mean():+.4f} ± {error:.4f}"
                print(f"{folder} scale {scale:g}: {found.mean():.4f}, {change}", flush=True)


def draw(
    adapter: str, count: int, out: Path, words: str, scale: float, seed: int, **options: float
) -> None:
    """Draw samples of random prompts after some words with seeds 0, 1, ...; writes OUT.png (a
    sheet) and OUT.npz (for the classifier). ``seed``: of the prompts; ``options``: of the
    sampler."""
    asked, known = scenes(count, seed), vocabulary()["subject"]
    prompts = [words + text for _, text in asked]
    with sf.load(adapters=[(adapter, scale)]) as pipe:
        pictures = [result.images[place] for result, place in draw_all(pipe, prompts, **options)]
    contact_sheet(pictures).save(out.with_suffix(".png"))
    small = [np.asarray(p.resize((JUDGED, JUDGED), Image.Resampling.BOX)) for p in pictures]
    subjects = [known.index(scene.subject) for scene, _ in asked]
    np.savez(out.with_suffix(".npz"), pictures=np.stack(small), subjects=np.array(subjects))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="what", required=True)
    scored = parts.add_parser("bits")
    scored.add_argument("adapter")
    scored.add_argument("folders", nargs="+", type=Path)
    drawn = parts.add_parser("draw")
    drawn.add_argument("adapter")
    drawn.add_argument("count", type=int)
    drawn.add_argument("out", type=Path)
    drawn.add_argument("--words", default=STYLES["pencil"], help="that prompts begin with")
    drawn.add_argument("--scale", type=float, default=1.0)
    drawn.add_argument("--guidance", type=float, default=2.0)
    drawn.add_argument("--attention-temperature", type=float, default=1.0)
    drawn.add_argument("--prompts-seed", type=int, default=PROMPTS_SEED)
    given = parser.parse_args()
    if given.what == "bits":
        tell_bits(given.adapter, given.folders)
    else:
        draw(
            given.adapter,
            given.count,
            given.out,
            given.words,
            given.scale,
            given.prompts_seed,
            guidance=given.guidance,
            attention_temperature=given.attention_temperature,
        )


if __name__ == "__main__":
    main()
