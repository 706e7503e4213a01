"""A network that recognizes motion, subject and place from a few frames of a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..default_model.classifier import prepare
from ..default_model.data import write_json
from ..default_model.optimizer import build_optimizers
from ..default_model.parallel import rank, share
from ..default_model.state import half_precision, load_state, save_state
from .fitting import fit
from .scenes import MOTIONS, PLACES, SUBJECTS, Clip, mirrored
from .settings import JudgeSettings

ANSWERS = {"motion": MOTIONS, "subject": SUBJECTS, "place": PLACES}


def _stage(before: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(before, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]


class Judge(nn.Module):
    """Convolutions over each frame; linear layers over all frames together."""

    def __init__(self, frames: int, widths: tuple[int, ...] = (32, 64, 96, 128)):
        super().__init__()
        stages = zip((3, *widths), widths, strict=False)
        self.body = nn.Sequential(*(layer for stage in stages for layer in _stage(*stage)))
        self.each = nn.Linear(16 * widths[-1], 128)
        self.pool = nn.Sequential(nn.SiLU(), nn.Linear(128 * frames, 256), nn.SiLU())
        self.heads = nn.ModuleDict({k: nn.Linear(256, len(v)) for k, v in ANSWERS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Frames (B, M, 3, 64, 64) → scores (B, answers) per kind of question."""
        hidden = self.each(self.body(x.flatten(0, 1)).flatten(1))
        hidden = self.pool(hidden.view(len(x), -1))
        return {kind: head(hidden) for kind, head in self.heads.items()}


def frames_of(clips: np.ndarray, settings: JudgeSettings) -> Tensor:
    """uint8 clips (B, M, H, W, 3) → the frames that the judge sees, (B, m, 3, 64, 64)."""
    seen = np.asarray(clips)[:, list(settings.frames)]
    x = prepare(seen.reshape(-1, *seen.shape[2:])).contiguous()
    return x.view(len(seen), -1, *x.shape[1:])


def labels_of(clips: list[Clip]) -> dict[str, np.ndarray]:
    told = {
        "motion": [clip.motion for clip in clips],
        "subject": [clip.scene.subject for clip in clips],
        "place": [clip.scene.place for clip in clips],
    }
    return {kind: np.array([ANSWERS[kind].index(v) for v in told[kind]]) for kind in ANSWERS}


_SWAPPED = torch.tensor([MOTIONS.index(mirrored(motion)) for motion in MOTIONS])


def _augment(x: Tensor, motion: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, blur and noise some clips, because samples are less clean than paintings."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(flip[:, None, None, None, None], x.flip(-1), x)
    soft = F.avg_pool2d(x.flatten(0, 1), 3, 1, 1).view_as(x)
    blur = 0.8 * torch.rand(len(x), 1, 1, 1, 1, generator=generator)
    x = x + blur * (soft - x)
    strength = 0.1 * torch.rand(len(x), 1, 1, 1, 1, generator=generator)
    x = x + strength * torch.randn(x.shape, generator=generator)
    return x, torch.where(flip, _SWAPPED[motion], motion)


@torch.no_grad()
def predict(judge: Judge, clips: np.ndarray, settings: JudgeSettings) -> dict[str, np.ndarray]:
    """The recognized answers, as indices, per kind, for uint8 clips (B, M, H, W, 3)."""
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in ANSWERS}
    for start in range(0, len(clips), 64):
        for kind, scores in judge(frames_of(clips[start : start + 64], settings)).items():
            found[kind].append(scores.argmax(1).numpy())
    return {kind: np.concatenate(parts) for kind, parts in found.items()}


def shares(
    judge: Judge, shown: np.ndarray, clips: list[Clip], settings: JudgeSettings
) -> dict[str, float]:
    """Share of the clips in which the judge recognizes what was asked, per kind and for all."""
    labels, found = labels_of(clips), predict(judge, shown, settings)
    right = {kind: found[kind] == labels[kind] for kind in ANSWERS}
    right["all at once"] = np.logical_and.reduce(list(right.values()))
    return {kind: float(hits.mean()) for kind, hits in right.items()}


def missed(
    judge: Judge, shown: np.ndarray, clips: list[Clip], settings: JudgeSettings
) -> list[str]:
    """What was asked and what the judge saw, for every clip in which they differ."""
    labels, found = labels_of(clips), predict(judge, shown, settings)
    lines = []
    for i in range(len(clips)):
        wrong = [k for k in ANSWERS if found[k][i] != labels[k][i]]
        pairs = [f"{ANSWERS[k][labels[k][i]]} seen as {ANSWERS[k][found[k][i]]}" for k in wrong]
        if wrong:
            lines.append(f"{i}: {'; '.join(pairs)}")
    return lines


def fit_judge(
    folder: Path,
    train: tuple[np.ndarray, list[Clip]],
    held_out: tuple[np.ndarray, list[Clip]],
    settings: JudgeSettings,
    say=lambda line: None,
) -> None:
    """Train and save ``judge.pt``, with its accuracies on held-out paintings in ``report.json``."""
    torch.manual_seed(settings.seed)
    judge, rate = Judge(len(settings.frames)), settings.learning_rate
    shown, labels = train[0], {k: torch.from_numpy(v) for k, v in labels_of(train[1]).items()}
    optimizers = build_optimizers(
        list(judge.named_parameters()),
        lambda name, p: p.ndim >= 2 and min(p.shape[:2]) >= 32 and "heads" not in name,
        rate,
        rate,
        0.1,
    )

    def loss_at(step: int) -> tuple[Tensor, str]:
        rng = np.random.default_rng([settings.seed, step])
        rows = np.sort(rng.integers(len(shown), size=settings.batch))[share(settings.batch)]
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + 2 * step + rank())
        wanted = {kind: own[torch.from_numpy(rows)] for kind, own in labels.items()}
        x = frames_of(shown[rows], settings)
        x, wanted["motion"] = _augment(x, wanted["motion"], generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision("cpu")):
            scores = judge(x)
        return sum(F.cross_entropy(scores[k].float(), wanted[k]) for k in ANSWERS), ""

    total = settings.clips // settings.batch
    done = fit(folder, judge, optimizers, total, loss_at, lambda t: say(f"judge {t}"), warm_up=30)
    if done and rank() == 0:
        save_state(folder / "judge.pt", judge.state_dict())
        accuracy = shares(judge.eval(), *held_out, settings)
        report = {"held_out_accuracy": accuracy, "clips_seen": settings.clips}
        write_json(folder / "report.json", report)
        say(f"judge held-out {accuracy}")


def load_judge(folder: Path, settings: JudgeSettings) -> Judge:
    judge = Judge(len(settings.frames))
    judge.load_state_dict(load_state(folder / "judge.pt"))
    return judge.eval()
