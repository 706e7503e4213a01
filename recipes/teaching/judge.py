"""A small network that classifies subject, place and style of a picture. Needs PyTorch."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..default_model.classifier import Judge, prepare
from ..default_model.painter import SPARE_SUBJECTS, paint
from ..default_model.state import half_precision
from .styles import SIZE, STYLES, scenes, styled, vocabulary

SIDE, BATCH, STEPS, PAINTED, HELD_OUT = 64, 64, 4000, 16000, 1400
SPOILED = slice(0, BATCH // 2)  # of a batch; not used for the style, which spots might change
SPARE = 10  # one scene in so many shows a subject that the embedded model does not know


def kinds() -> dict[str, tuple[str, ...]]:
    """The possible answers."""
    known = vocabulary()
    subjects = (*known["subject"], *SPARE_SUBJECTS)
    return {"subject": subjects, "place": tuple(known["place"]), "style": tuple(STYLES)}


def new_judge() -> Judge:
    """An untrained classifier."""
    return Judge(kinds=kinds())


def load_judge(path: Path) -> Judge:
    """The classifier that ``fit`` saved."""
    judge = new_judge()
    judge.load_state_dict(torch.load(path, weights_only=True))
    return judge.eval()


def paintings(count: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Paintings in every style (styles, N, 64, 64, 3); their subjects and places (N,)."""
    answers, found = kinds(), []
    labels: dict[str, list[int]] = {"subject": [], "place": []}
    for i, (scene, _) in enumerate(scenes(count, seed)):
        if i % SPARE == 0:
            scene = replace(scene, subject=SPARE_SUBJECTS[i // SPARE % len(SPARE_SUBJECTS)])
        picture = paint(scene, SIZE)
        half = [styled(picture, s).resize((SIDE, SIDE), Image.Resampling.BOX) for s in STYLES]
        found.append(np.stack([np.asarray(p) for p in half]))
        for kind, known in labels.items():
            known.append(answers[kind].index(getattr(scene, kind)))
    return np.stack(found, axis=1), {kind: np.array(v) for kind, v in labels.items()}


def spoiled(x: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, 64, 64) with what samples have and paintings have not: less sharpness, and
    spots of wrong colours in two sizes."""
    side = int(torch.randint(20, SIDE + 1, ()))
    small = F.interpolate(x, size=(side, side), mode="area")
    x = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    for cells in (16, 32):
        spots = torch.randn(len(x), x.shape[1], cells, cells)
        spots = F.interpolate(spots, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = x + 0.35 * torch.rand(len(x), 1, 1, 1) * spots
    return x


def fit(path: Path) -> None:
    """Train a classifier, save it, and print its accuracies on held-out paintings."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    (pictures, labels), held = paintings(PAINTED, 101), paintings(HELD_OUT, 102)
    judge, rng = new_judge().to(memory_format=torch.channels_last), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(judge.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS)
    for _ in range(STEPS):
        rows = rng.integers(pictures.shape[1], size=BATCH)
        style = rng.integers(len(STYLES), size=BATCH)
        x = prepare(pictures[style, rows])
        mirror = torch.from_numpy(rng.random(BATCH) < 0.5)[:, None, None, None]
        x = torch.where(mirror, x.flip(-1), x)
        x = torch.roll(x, tuple(int(n) for n in rng.integers(-4, 5, 2)), (2, 3))
        x = x + 0.12 * torch.rand(BATCH, 1, 1, 1) * torch.randn_like(x)
        x[SPOILED] = spoiled(x[SPOILED])
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision("cpu")):
            said = {kind: scores.float() for kind, scores in judge(x).items()}
        clear = slice(SPOILED.stop, None)
        loss = 0.3 * F.cross_entropy(said["style"][clear], torch.from_numpy(style[clear]))
        for kind, known in labels.items():
            loss = loss + F.cross_entropy(said[kind], torch.from_numpy(known[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save(judge.state_dict(), path)
    for number, name in enumerate(STYLES):
        print(f"held-out paintings, {name}: {shares(judge, held[0][number], held[1], number)}")


@torch.no_grad()
def told(judge: Judge, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of the answers (N,) for pictures (N, H, W, 3), by kind."""
    parts = [judge(prepare(pictures[i : i + BATCH])) for i in range(0, len(pictures), BATCH)]
    return {kind: torch.cat([p[kind] for p in parts]).argmax(1).numpy() for kind in parts[0]}


def shares(judge: Judge, pictures: np.ndarray, labels: dict[str, np.ndarray], style: int) -> str:
    """The shares of pictures (N, 64, 64, 3) for which the classifier predicts the labels and the
    style."""
    said = told(judge, pictures)
    found = [f"{kind} {(said[kind] == known).mean():.3f}" for kind, known in labels.items()]
    return ", ".join([*found, f"style {(said['style'] == style).mean():.3f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("fit", "tell"))
    parser.add_argument("judge", type=Path)
    parser.add_argument("drawn", nargs="?", type=Path, help="written by measure draw")
    parser.add_argument("--style", choices=tuple(STYLES), default="pencil")
    given = parser.parse_args()
    if given.what == "fit":
        fit(given.judge)
        return
    with np.load(given.drawn) as drawn:
        labels = {"subject": drawn["subjects"]}
        style = list(STYLES).index(given.style)
        print(shares(load_judge(given.judge), drawn["pictures"], labels, style))


if __name__ == "__main__":
    main()
