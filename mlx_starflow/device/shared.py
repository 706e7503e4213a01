"""Linear layers that are cut into shares for several ranks, as in Megatron (arXiv 1909.08053).

A layer is cut by its outputs ("rows" of its matrix: every rank makes some outputs from all inputs)
or by its inputs ("columns": every rank makes a part of all outputs, which ``mx.distributed`` adds
up). The first kind needs no message forward, the second none backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import UsageError

Range = tuple[int, int]


@dataclass(frozen=True)
class Share:
    """One rank's share of a model."""

    rank: int
    size: int
    group: Any = None  # of mx.distributed; None: to read a share without computing with it

    @classmethod
    def of(cls, group: Any) -> Share:
        """This rank's share in a group of ``mx.distributed``."""
        return cls(group.rank(), group.size(), group)

    def range(self, count: int, what: str) -> Range:
        """This rank's share of ``count`` things. Errors: UsageError if they do not divide."""
        if count % self.size:
            raise UsageError(
                f"{count} {what} cannot be divided among {self.size} ranks. Use a number of ranks "
                "that divides it."
            )
        own = count // self.size
        return self.rank * own, (self.rank + 1) * own


@dataclass(frozen=True)
class Cut:
    """What a rank keeps of a linear layer."""

    kind: str  # "rows", "columns", or "whole" for arrays that every rank has but uses in part
    parts: tuple[Range, ...] = ()  # ranges of outputs, or one range of inputs
    whole: int = 0  # all outputs, or all inputs

    def axis(self, leaf: str) -> int | None:
        """The axis along which an array of the layer ("weight", "bias", "scales", "biases") is cut;
        None: it is kept whole."""
        if self.kind == "rows":
            return 0
        return None if leaf == "bias" or self.kind == "whole" else 1

    def ranges(self, leaf: str, shape: tuple[int, ...], name: str) -> tuple[Range, ...]:
        """The ranges along ``axis`` of an array of this shape; the numbers of a quantized matrix
        are packed along its inputs. Errors: UsageError naming the layer if a group is cut."""
        axis = self.axis(leaf)
        if axis is None:
            return ()
        length, found = shape[axis], []
        for begin, end in self.parts:
            if begin * length % self.whole or end * length % self.whole:
                raise UsageError(
                    f"{name}: its {self.whole} inputs are quantized in {length} groups, which "
                    "cannot be divided so. Use fewer ranks, or a model that is not quantized."
                )
            found.append((begin * length // self.whole, end * length // self.whole))
        return tuple(found)

    def taken(self, leaf: str, array: mx.array, name: str) -> mx.array:
        """The kept part of an array of the layer."""
        axis = self.axis(leaf)
        if axis is None:
            return array
        ranges = self.ranges(leaf, array.shape, name)
        rows = [array[a:b] if axis == 0 else array[:, a:b] for a, b in ranges]
        return mx.contiguous(rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=axis))


def cut_layer(layer: nn.Module, cut: Cut, share: Share, name: str) -> None:
    """Keep a rank's share of a linear layer that is in memory. Errors: UsageError."""
    for leaf in ("weight", "scales", "biases", "bias"):
        if leaf in layer:
            layer[leaf] = cut.taken(leaf, layer[leaf], name)
            mx.eval(layer[leaf])
    mark(layer, cut, share)


def mark(layer: nn.Module, cut: Cut, share: Share) -> None:
    """Say of a layer, which holds a share already, how it was cut and with whom it is shared."""
    layer.cut, layer.share = cut, share


def cut_of(layer: nn.Module) -> Cut | None:
    """How a layer was cut; None: it is whole."""
    return getattr(layer, "cut", None)


def gathers(layer: nn.Module) -> bool:
    """Whether what the layer gives must be added up over the ranks."""
    cut = cut_of(layer)
    return cut is not None and cut.kind == "columns"


def added_up(layer: nn.Module, value: mx.array) -> mx.array:
    """The sum over all ranks of what a layer cut by its inputs gives, in float32; ``value`` itself
    for any other layer."""
    if not gathers(layer):
        return value
    return mx.distributed.all_sum(value.astype(mx.float32), group=layer.share.group)


def for_all(layer: nn.Module, x: mx.array) -> mx.array:
    """x, which all ranks have, as the input of a layer of which each uses a part: the gradient of x
    is then the sum over the ranks."""
    cut = cut_of(layer)
    if cut is None or cut.kind == "columns" or layer.share.group is None:
        return x
    from mlx.nn.layers.distributed import sum_gradients

    summed: Callable[[mx.array], mx.array] = sum_gradients(layer.share.group)
    return summed(x)
