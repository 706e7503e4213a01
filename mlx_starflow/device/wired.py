"""Wired memory: memory that macOS may not page out while a model is working.

Without it, a model that fills most of an 8 or 16 GB Mac may be compressed or swapped between two
steps, which is slow and can exceed the GPU's time limit. MLX has one limit per process, so tasks
that overlap share it: the first sets it, the last restores the old one.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import mlx.core as mx

Steps = TypeVar("Steps", bound=Callable[..., Iterator[Any]])


class _Limit:
    """The process's wired limit, with the number of tasks that use it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users, self.before = 0, 0

    def raise_to(self, size: int) -> None:
        with self.lock:
            if self.users == 0:
                self.before = mx.set_wired_limit(size)
            self.users += 1

    def restore(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                mx.synchronize()
                mx.set_wired_limit(self.before)


_limit = _Limit()


@contextmanager
def wired() -> Iterator[None]:
    """Keep MLX's memory wired, up to the recommended working set size, inside the ``with`` block.
    Does nothing without Metal."""
    size = mx.device_info().get("max_recommended_working_set_size", 0) if has_metal() else 0
    if not size:
        yield
        return
    _limit.raise_to(int(size))
    try:
        yield
    finally:
        _limit.restore()


def wired_steps(function: Steps) -> Steps:
    """A decorator: ``wired`` around a generator's work, from its first step to its last."""

    @functools.wraps(function)
    def steps(*arguments: Any, **options: Any) -> Iterator[Any]:
        with wired():
            return (yield from function(*arguments, **options))

    return cast(Steps, steps)


def has_metal() -> bool:
    """Whether MLX's default device is a GPU used through Metal."""
    return mx.metal.is_available() and mx.default_device() == mx.Device(mx.gpu)
