"""A small network that classifies subject and style of a picture of 64x64 pixels. Needs PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..default_model.classifier import Judge, prepare
from ..default_model.painter import paint
from .styles import SIZE, STYLES, scenes, styled, vocabulary

SIDE, BATCH, STEPS, PAINTED, HELD_OUT = 64, 64, 600, 5000, 400
WIDTHS = (16, 32, 64, 96)


def new_judge() -> Judge:
    """An untrained classifier of subject and style."""
    return Judge(WIDTHS, {"subject": vocabulary()["subject"], "style": STYLES})


def paintings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Paintings in every style (styles, N, 64, 64, 3) and their subjects (N,)."""
    known, found, subjects = vocabulary()["subject"], [], []
    for scene, _ in scenes(count, seed):
        picture = paint(scene, SIZE)
        half = [styled(picture, s).resize((SIDE, SIDE), Image.Resampling.BOX) for s in STYLES]
        found.append(np.stack([np.asarray(p) for p in half]))
        subjects.append(known.index(scene.subject))
    return np.stack(found, axis=1), np.array(subjects)


def fit(path: Path) -> None:
    """Train a classifier, save it, and print its accuracies on held-out paintings."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    (pictures, subjects), held = paintings(PAINTED, 101), paintings(HELD_OUT, 102)
    judge, rng = new_judge(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(judge.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS)
    for _ in range(STEPS):
        rows, style = rng.integers(len(subjects), size=BATCH), rng.integers(len(STYLES), size=BATCH)
        x = prepare(pictures[style, rows])
        mirror = torch.from_numpy(rng.random(BATCH) < 0.5)[:, None, None, None]
        x = torch.where(mirror, x.flip(-1), x)
        x = torch.roll(x, tuple(int(n) for n in rng.integers(-4, 5, 2)), (2, 3))
        x = x + 0.12 * torch.rand(BATCH, 1, 1, 1) * torch.randn_like(x)
        said = judge(x)
        loss = F.cross_entropy(said["subject"], torch.from_numpy(subjects[rows]))
        loss = loss + 0.3 * F.cross_entropy(said["style"], torch.from_numpy(style))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save(judge.state_dict(), path)
    for number, name in enumerate(STYLES):
        print(f"held-out paintings, {name}: {shares(judge, held[0][number], held[1], number)}")


@torch.no_grad()
def shares(judge: Judge, pictures: np.ndarray, subjects: np.ndarray, style: int) -> str:
    """The shares of pictures (N, 64, 64, 3) for which the classifier predicts the given subjects
    and the style."""
    parts = [judge(prepare(pictures[i : i + BATCH])) for i in range(0, len(pictures), BATCH)]
    said = {kind: torch.cat([p[kind] for p in parts]).argmax(1).numpy() for kind in parts[0]}
    subject, own = (said["subject"] == subjects).mean(), (said["style"] == style).mean()
    return f"subject {subject:.3f}, style {own:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("fit", "tell"))
    parser.add_argument("judge", type=Path)
    parser.add_argument("drawn", nargs="?", type=Path, help="written by measure draw")
    parser.add_argument("--style", choices=STYLES, default="pencil")
    given = parser.parse_args()
    if given.what == "fit":
        fit(given.judge)
        return
    judge = new_judge()
    judge.load_state_dict(torch.load(given.judge, weights_only=True))
    with np.load(given.drawn) as drawn:
        print(shares(judge.eval(), drawn["pictures"], drawn["subjects"], STYLES.index(given.style)))


if __name__ == "__main__":
    main()
