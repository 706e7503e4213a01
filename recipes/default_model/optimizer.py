"""Muon for the matrices inside the layers, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .parallel import average_gradients, rank, world
from .state import half_precision


def _orthogonal(matrix: Tensor) -> Tensor:
    """Approximately the nearest semi-orthogonal matrix, by five Newton–Schulz steps."""
    x = matrix.bfloat16() if half_precision(matrix.device.type) else matrix
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """SGD with orthogonalised momentum; each process orthogonalises a part of the matrices."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            updates, parts = [], 0
            for p in group["params"]:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                moment = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                direction = p.grad.add(moment, alpha=group["momentum"])
                # Queries, keys and values are three matrices stacked in one.
                stacked = 3 if p.ndim == 2 and p.shape[0] == 3 * p.shape[1] else 1
                done = []
                for matrix in direction.flatten(1).chunk(stacked):
                    mine = parts % world() == rank()
                    done.append(_orthogonal(matrix) if mine else torch.zeros_like(matrix))
                    parts += 1
                # Scaled to the size of AdamW's updates, so that learning rates are comparable.
                updates.append(torch.cat(done) * 0.2 * max(done[0].shape) ** 0.5)
            if world() > 1:
                flat = torch.cat([u.reshape(-1) for u in updates])
                dist.all_reduce(flat)
                sizes = [u.numel() for u in updates]
                pairs = zip(flat.split(sizes), updates, strict=True)
                updates = [part.view_as(u) for part, u in pairs]
            for p, update in zip(group["params"], updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view_as(p), alpha=-group["lr"])


def build_optimizers(
    named: list[tuple[str, nn.Parameter]],
    is_matrix: Callable[[str, nn.Parameter], bool],
    rate: float,
    matrix_rate: float,
    decay: float = 0.0,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the rest; "peak" of a group is its peak learning rate."""
    matrices = [p for name, p in named if is_matrix(name, p)]
    rest = [p for name, p in named if not is_matrix(name, p)]
    built = [
        Muon(matrices, matrix_rate, weight_decay=decay),
        torch.optim.AdamW(rest, rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in built:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return built


def descend(loss: Tensor, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """One step of all optimizers, with gradients averaged over the processes and clipped at 1."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(model.parameters())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def cosine(step: int, total: int, warm_up: int, floor: float = 0.01) -> float:
    """The factor of the learning rate: linear warm-up, then half a cosine down to `floor`."""
    warm = min(1.0, (step + 1) / warm_up)
    return warm * (floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, step / total))) / 2)
