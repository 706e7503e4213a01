"""A subject that the embedded model does not know: paint it, draw it with an adapter, and count how
often the classifier of ``judge`` recognizes it (needs PyTorch).

python -m recipes.teaching.subjects paint runs/robot --subject robot --count 12 --seed 1
python -m recipes.teaching.subjects draw runs/robot-adapter runs/robot-drawn --subject robot
python -m recipes.teaching.subjects count runs/robot-drawn.npz runs/judge.pt --subject robot
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import mlx_starflow as sf
from mlx_starflow.pictures.sheet import contact_sheet

from ..default_model.likelihood.zero_shot import PLACE_PHRASES
from ..default_model.painter import Scene, paint
from .styles import SIZE, vocabulary

SIZES = {"medium": "a ", "big": "a big "}  # and how a caption says it
BATCH = 8


def prompts(subject: str, count: int) -> list[str]:
    """Captions of the subject in the places that the model knows, in turn, in both sizes."""
    places = [PLACE_PHRASES[place] for place in vocabulary()["place"]]
    articles = list(SIZES.values())
    return [
        f"{articles[i // len(places) % 2]}{subject} {places[i % len(places)]}" for i in range(count)
    ]


def paint_folder(folder: Path, subject: str, count: int, seed: int) -> None:
    """Paint the scenes of ``prompts``, each with its caption in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    places, rng = vocabulary()["place"], np.random.default_rng(seed)
    for i, text in enumerate(prompts(subject, count)):
        size = list(SIZES)[i // len(places) % 2]
        scene = Scene(subject, places[i % len(places)], size=size, seed=int(rng.integers(1 << 20)))
        paint(scene, SIZE).save(folder / f"{i:04d}.png")
        (folder / f"{i:04d}.txt").write_text(text)


def draw(
    adapter: str, out: Path, subject: str, count: int, scale: float, guidance: float | None
) -> None:
    """Draw ``prompts`` with seeds 0, 1, ...; writes OUT.png (a sheet) and OUT.npz."""
    pictures, asked = [], prompts(subject, count)
    with sf.load(adapters=[(adapter, scale)]) as pipe:
        for start in range(0, count, BATCH):
            rows = asked[start : start + BATCH]
            seeds = list(range(start, start + len(rows)))
            pictures += pipe.generate(
                rows, seed=seeds, sampler="sequential", guidance=guidance
            ).images
    contact_sheet(pictures).save(out.with_suffix(".png"))
    np.savez(out.with_suffix(".npz"), pictures=np.stack([np.asarray(p) for p in pictures]))


def count_recognized(file: Path, judge: Path, subject: str) -> tuple[int, int, int]:
    """Pictures in which the classifier recognizes the subject, and the place of ``prompts``; and
    all pictures."""
    from .judge import kinds, load_judge, told  # imports PyTorch

    with np.load(file) as held:
        pictures = held["pictures"]
    found, places, answers = told(load_judge(judge), pictures), vocabulary()["place"], kinds()
    asked = np.array(
        [answers["place"].index(places[i % len(places)]) for i in range(len(pictures))]
    )
    right = found["subject"] == answers["subject"].index(subject)
    return int(right.sum()), int((found["place"] == asked).sum()), len(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="what", required=True)
    painted, drawn, counted = (parts.add_parser(name) for name in ("paint", "draw", "count"))
    painted.add_argument("folder", type=Path)
    painted.add_argument("--count", type=int, default=12)
    painted.add_argument("--seed", type=int, default=1)
    drawn.add_argument("adapter")
    drawn.add_argument("out", type=Path)
    drawn.add_argument("--count", type=int, default=36)
    drawn.add_argument("--scale", type=float, default=1.0)
    drawn.add_argument("--guidance", type=float)
    counted.add_argument("file", type=Path)
    counted.add_argument("judge", type=Path, help="written by judge fit")
    for part in (painted, drawn, counted):
        part.add_argument("--subject", required=True)
    given = parser.parse_args()
    if given.what == "paint":
        paint_folder(given.folder, given.subject, given.count, given.seed)
    elif given.what == "draw":
        draw(given.adapter, given.out, given.subject, given.count, given.scale, given.guidance)
    else:
        right, placed, total = count_recognized(given.file, given.judge, given.subject)
        print(f"{given.subject}: {right} of {total}, place: {placed} of {total}")


if __name__ == "__main__":
    main()
