"""Data-parallel training on the cores of one machine: one single-threaded process per core.

Threads of one process wait for each other in every operation, so another busy program on one core
slows all of them. Processes wait for each other only once per step.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(batch: int) -> slice:
    """The rows of a batch that this process computes."""
    size = batch // world()
    return slice(rank() * size, (rank() + 1) * size)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes, with one message."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= world()
    for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        g.copy_(part.view_as(g))


def agree(flag: bool) -> bool:
    """Return the flag of process 0 in all processes, so that they stop or save together."""
    if world() == 1:
        return flag
    value = torch.tensor([float(flag)])
    dist.broadcast(value, 0)
    return bool(value.item())


def _enter(index: int, count: int, meeting: str, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    dist.init_process_group("gloo", f"file://{meeting}", rank=index, world_size=count)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


def _end_with_parent(parent: int) -> None:
    # When the parent is killed, its children would continue to train next to the following run.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def launch(function: Callable, arguments: tuple, processes: int) -> None:
    """Run `function(*arguments)` in `processes` processes; on a GPU or for one, in this process."""
    if processes <= 1 or torch.cuda.is_available():
        function(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = os.path.join(folder, "meeting")
        torch.multiprocessing.spawn(
            _enter, (processes, meeting, function, arguments), nprocs=processes
        )
