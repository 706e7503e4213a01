"""A training on several ranks: every rank has a part of each batch, and gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import mlx.core as mx
from mlx.nn import average_gradients

from ..device.typed import scalar
from .checkpoint import Progress
from .parameters import Arrays


class Together:
    """The ranks of a training. ``group``: of ``mx.distributed``; None for one process by itself.
    ``share``: gives rank 0's value, for JSON, to all ranks. ``step``: called while the work goes
    on. ``divided``: the ranks have shares of the flow, so each computes with the whole batch."""

    def __init__(
        self,
        group: Any = None,
        share: Callable[[Any], Any] = lambda value: value,
        step: Callable[[], None] = lambda: None,
        divided: bool = False,
    ) -> None:
        self.group, self.share, self.step = group, share, step
        self.rank = 0 if group is None else group.rank()
        self.divided = divided
        # Into how many parts a batch is divided
        self.parts = 1 if group is None or divided else group.size()

    def own(self, size: int) -> slice:
        """This rank's part of a batch of ``size`` pictures for each of the ``parts``."""
        first = 0 if self.divided else self.rank * size
        return slice(first, first + size)

    def mean(self, slopes: Arrays) -> Arrays:
        """The mean of the gradients of all parts of a batch."""
        if self.parts == 1:
            return slopes
        names = list(slopes)
        mx.eval(slopes)  # apart from the messages, which would have to wait for it
        found = average_gradients([slopes[name] for name in names], self.group)
        return dict(zip(names, found, strict=True))

    def mean_of(self, value: mx.array) -> mx.array:
        """The mean of a number of all parts of a batch."""
        if self.parts == 1:
            return value
        return mx.distributed.all_sum(value, group=self.group) / self.parts

    def any(self, flag: bool) -> bool:
        """Whether a flag is set on any rank; asked before every step."""
        self.step()
        if self.group is None:
            return flag
        return scalar(mx.distributed.all_sum(mx.array(float(flag)), group=self.group)) > 0

    def same(self, state: Arrays | None, like: Arrays) -> Arrays:
        """Rank 0's arrays on all ranks; ``like``: arrays of these shapes and types."""
        if self.group is None or state is None and self.rank == 0:
            return like if state is None else state
        found = {}
        for name in sorted(like):
            own = state[name] if state is not None and self.rank == 0 else mx.zeros_like(like[name])
            found[name] = mx.distributed.all_sum(own.astype(like[name].dtype), group=self.group)
            mx.eval(found[name])
        return found

    def progress(self, own: Progress) -> Progress:
        """Rank 0's progress on all ranks."""
        found = self.share(asdict(own))
        rows = tuple(tuple(row) for row in found["rows"])
        return Progress(**{**found, "since": tuple(found["since"]), "rows": rows})
