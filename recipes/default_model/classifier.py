"""A small convolutional network that recognizes subject, place, colour and number in samples."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import write_json
from .optimizer import build_optimizers, cosine, set_rates
from .painter import COLOURS, COUNTS, PLACES, SUBJECTS, Scene
from .painter.palette import NAMED
from .painter.palette import NATURAL as NATURAL_TONES
from .parallel import agree, average_gradients, rank, share
from .settings import ClassifierSettings
from .state import half_precision, load_state, save_state

NATURAL = "natural"
KINDS = {"subject": SUBJECTS, "place": PLACES, "colour": (NATURAL, *COLOURS), "count": COUNTS}
_SIDE = 64  # pictures are scaled to this size first, which is enough to recognize everything


class Judge(nn.Module):
    """Four strided convolution stages; one linear head per kind of question."""

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 192),
        kinds: Mapping[str, Sequence[str]] = KINDS,
    ):
        """``kinds``: the possible answers of each kind."""
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(8, width), nn.SiLU()]
            before = width
        self.body = nn.Sequential(*layers)
        cells = widths[-1] * (_SIDE // 2 ** len(widths)) ** 2
        self.pool = nn.Sequential(nn.Linear(cells, 256), nn.SiLU())
        self.heads = nn.ModuleDict({kind: nn.Linear(256, len(v)) for kind, v in kinds.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.pool(self.body(x).flatten(1))
        return {kind: head(hidden) for kind, head in self.heads.items()}


def prepare(pictures: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) → float (B, 3, 64, 64) in [-1, 1]."""
    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = F.interpolate(x, size=(_SIDE, _SIDE), mode="area")
    return x.contiguous(memory_format=torch.channels_last)


def colour_name(scene: Scene) -> str:
    """The colour to recognize: a natural colour close to a named one counts as the named one.

    For example, a natural car looks red and a natural star yellow.
    """
    if scene.colour is not None:
        return scene.colour
    own = np.array(NATURAL_TONES[scene.subject])
    distance = {name: float(np.linalg.norm(own - tone)) for name, tone in NAMED.items()}
    nearest = min(distance, key=distance.get)
    return nearest if distance[nearest] < 36 else NATURAL


def labels_of(scenes: list[Scene]) -> dict[str, np.ndarray]:
    told = {
        "subject": [s.subject for s in scenes],
        "place": [s.place for s in scenes],
        "colour": [colour_name(s) for s in scenes],
        "count": [s.count for s in scenes],
    }
    return {kind: np.array([KINDS[kind].index(v) for v in told[kind]]) for kind in KINDS}


def _augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random flips, small shifts and noise, because samples are less clean than paintings."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    dy, dx = (int(torch.randint(-3, 4, (), generator=generator)) for _ in range(2))
    x = torch.roll(x, (dy, dx), (2, 3))
    strength = 0.1 * torch.rand(len(x), 1, 1, 1, generator=generator)
    return x + strength * torch.randn(x.shape, generator=generator)


@torch.no_grad()
def predict(judge: Judge, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Class indices per kind for uint8 pictures (N, H, W, 3)."""
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for start in range(0, len(pictures), 256):
        for kind, scores in judge(prepare(pictures[start : start + 256])).items():
            found[kind].append(scores.argmax(1).numpy())
    return {kind: np.concatenate(parts) for kind, parts in found.items()}


def accuracies(judge: Judge, pictures: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    labels, found = labels_of(scenes), predict(judge, pictures)
    return {kind: float((found[kind] == labels[kind]).mean()) for kind in KINDS}


def fit_classifier(
    folder: Path,
    train: tuple[np.ndarray, list[Scene]],
    held_out: tuple[np.ndarray, list[Scene]],
    settings: ClassifierSettings,
    say=lambda line: None,
) -> None:
    """Train and save ``classifier.pt`` with its held-out accuracies in ``report.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, labels = train[0], labels_of(train[1])
    torch.manual_seed(settings.seed)
    judge = Judge().to(memory_format=torch.channels_last)
    named = list(judge.named_parameters())
    optimizers = build_optimizers(
        named,
        lambda name, p: p.ndim >= 2 and min(p.shape[:2]) >= 32 and "heads" not in name,
        settings.learning_rate,
        settings.learning_rate,
        0.1,
    )
    first, total = 0, settings.images // settings.batch
    if state := load_state(folder / "state.pt"):
        judge.load_state_dict(state["model"])
        for optimizer, held in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        first = state["step"]
    saved = time.monotonic()
    for step in range(first, total):
        rng = np.random.default_rng([settings.seed, step])
        rows = np.sort(rng.integers(len(pictures), size=settings.batch))[share(settings.batch)]
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + 2 * step + rank())
        set_rates(optimizers, cosine(step, total, warm_up=30))
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision("cpu")):
            scores = judge(_augment(prepare(pictures[rows]), generator))
        targets = {kind: torch.from_numpy(labels[kind][rows]) for kind in KINDS}
        loss = sum(F.cross_entropy(scores[kind].float(), targets[kind]) for kind in KINDS)
        judge.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(p for _, p in named)
        for optimizer in optimizers:
            optimizer.step()
        if rank() == 0 and step % 100 == 0:
            say(f"classifier step {step}/{total} loss {loss.item():.4f}")
        if agree(time.monotonic() - saved > 60):
            saved = time.monotonic()
            if rank() == 0:
                held = [optimizer.state_dict() for optimizer in optimizers]
                parts = {"model": judge.state_dict(), "optimizers": held, "step": step + 1}
                save_state(folder / "state.pt", parts)
    if rank() == 0:
        save_state(folder / "classifier.pt", judge.state_dict())
        report = {"held_out_accuracy": accuracies(judge, *held_out), "images_seen": settings.images}
        write_json(folder / "report.json", report)
        say(f"classifier held-out {report['held_out_accuracy']}")


def load_classifier(folder: Path) -> Judge:
    judge = Judge()
    judge.load_state_dict(load_state(folder / "classifier.pt"))
    return judge.eval()
