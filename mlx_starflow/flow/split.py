"""How one model's arithmetic is divided among ranks: by captions, or by shares of every layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from ..device.shared import Share
from ..errors import ConfigError, UsageError
from .block import Network
from .model import Flow
from .shards import mark_flow

GUIDANCE, TENSOR = "guidance", "tensor"


class Split:
    """The division of a model's work in a group of ``mx.distributed``.

    "guidance": of two ranks the first evaluates captions and the second null captions; they
    exchange a and b of every token or window. "tensor": every rank has a share of every layer.
    """

    def __init__(self, kind: str, group: Any) -> None:
        """Errors: UsageError for a split that this number of ranks does not allow."""
        if kind == GUIDANCE and group.size() != 2:
            raise UsageError(
                f"--split guidance runs on 2 ranks (captions and null captions), not on "
                f"{group.size()}."
            )
        self.kind, self.group = kind, group
        self.active = True  # False: every rank works by itself, see ``alone``
        self.messages = self.bytes = 0  # of the exchange of a and b

    @property
    def share(self) -> Share | None:
        """This rank's share of the layers; None: all of them."""
        return Share.of(self.group) if self.kind == TENSOR else None

    def settle(self, flow: Flow) -> None:
        """Tell a loaded flow that it is divided."""
        if self.kind == TENSOR:
            mark_flow(flow, Share.of(self.group))
            return
        for block in flow.blocks:
            if isinstance(block, Network):
                block.split = self

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the ``with`` block this rank computes without the other."""
        if self.kind == TENSOR:
            raise ConfigError("A share of a model cannot compute by itself.")
        self.active = False
        try:
            yield
        finally:
            self.active = True

    def own_half(self, batch: int) -> slice:
        """The rows of captions, then null captions (2 * batch), that this rank evaluates."""
        first = self.group.rank() * batch
        return slice(first, first + batch)

    def exchange(self, a: mx.array, b: mx.array) -> tuple[mx.array, mx.array]:
        """a and b (B, n, D) of this rank's half -> of both halves (2B, n, D)."""
        own = mx.concatenate([a, b], axis=-1)
        mx.eval(own)  # apart from the message, for which the device would have to wait
        both = mx.distributed.all_gather(own, group=self.group)
        mx.eval(both)
        self.messages += 1
        self.bytes += own.nbytes
        halves = mx.split(both, 2, axis=-1)
        return halves[0], halves[1]
