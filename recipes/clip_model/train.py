"""Training of the flow on parts of clips, and on single frames."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..default_model.text import PAD_ID, null_ids
from ..default_model.train import Trainer
from .captions import VIDEO
from .data import token_id
from .scenes import MOTIONS

# A single frame has no motion; one at the beginning of "night into day" is a picture at night.
_MOVING = (VIDEO, "move", *(motion for motion in MOTIONS if motion != "lighter"))


def as_stills(ids: Tensor) -> Tensor:
    """The captions of the first frames: without the words of motion."""
    kept = ids.clone()
    kept[kept == token_id("lighter")] = token_id("night")
    gone = torch.isin(kept, torch.tensor([token_id(word) for word in _MOVING]))
    order = gone.to(torch.int8).argsort(dim=1, stable=True)  # the words that stay, in their order
    return kept.masked_fill(gone, PAD_ID).gather(1, order)


def null_clip(length: int) -> Tensor:
    """The token ids (1, length) of the null caption of a clip."""
    ids = null_ids(length)
    ids[0, 1] = token_id(VIDEO)
    return ids


def nats_by_frame(z: Tensor, logdets: list[Tensor], frames: int) -> Tensor:
    """−log p per dimension of every frame, without the constant; (B, frames)."""
    size = len(z), frames, -1
    inner = sum(logdet.reshape(size).mean(2) for logdet in logdets if logdet.ndim > 1)
    return 0.5 * z.square().reshape(size).mean(2) - inner


class ClipTrainer(Trainer):
    """Trains on windows of the clips.

    A window that begins in the middle of a motion teaches how to continue a clip: its first frame
    is only read, because a clip that is drawn begins with a frame of another kind, a picture.
    """

    def null(self, length: int) -> Tensor:
        return null_clip(length)

    def cut(self, x: Tensor, ids: Tensor, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        s = self.settings
        if rng is not None and rng.random() < s.stills:
            return x[:, 0], as_stills(ids), torch.ones(len(x), 1)
        starts, weights = np.zeros(len(x), int), torch.ones(len(x), s.window)
        if rng is not None and (last := x.shape[1] - s.window) > 0:
            later = rng.random(len(x)) < s.continued
            starts = np.where(later, rng.integers(1, last + 1, len(x)), 0)
            weights[torch.from_numpy(later), 0] = 0
        return (
            torch.stack([c[i : i + s.window] for c, i in zip(x, starts, strict=True)]),
            ids,
            weights,
        )

    def loss(self, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        nats = nats_by_frame(*self.evaluate(x, ids), weights.shape[1])
        return (nats * weights).sum() / weights.sum()
