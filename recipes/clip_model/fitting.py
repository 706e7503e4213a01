"""A training loop for small networks: schedule, states on disk, several processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..default_model.optimizer import cosine, descend, set_rates
from ..default_model.parallel import agree, rank
from ..default_model.state import load_state, save_state


def fit(
    folder: Path,
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    total: int,
    loss_at: Callable[[int], tuple[torch.Tensor, str]],
    say=lambda line: None,
    warm_up: int = 50,
    save_seconds: float = 120.0,
    stop_after: int | None = None,
) -> bool:
    """Train to step ``total``, or to ``stop_after``; a later call continues from the last state.

    ``loss_at(step)``: the loss of this process's part of a step, and a text for the log. Its random
    numbers must depend on the step only. Returns whether the training is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, first = folder / "state.pt", 0
    if state := load_state(path, next(model.parameters()).device.type):
        first = state["step"]
        model.load_state_dict(state["model"])
        for optimizer, held in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
    saved = began = time.monotonic()

    def save(step: int) -> None:
        if rank() == 0:
            held = [optimizer.state_dict() for optimizer in optimizers]
            save_state(path, {"model": model.state_dict(), "optimizers": held, "step": step})

    last = min(total, stop_after or total)
    for step in range(first, last):
        set_rates(optimizers, cosine(step, total, warm_up))
        loss, text = loss_at(step)
        descend(loss, model, optimizers)
        if rank() == 0 and (step % 100 == 0 or step in (first + 5, total - 1)):
            spent = (time.monotonic() - began) / (step + 1 - first)
            say(f"step {step}/{total} loss {loss.item():.4f} {text} ({spent:.2f} s a step)")
        if agree(time.monotonic() - saved > save_seconds):
            save(step + 1)
            saved = time.monotonic()
    save(max(first, last))
    return max(first, last) == total
