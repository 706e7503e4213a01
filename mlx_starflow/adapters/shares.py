"""A rank's share of an adapter: the part of an update that changes its share of a layer.

Of a layer that is cut by its outputs a rank has the columns of lora_b and the numbers of m for its
outputs, and all of lora_a. Of one that is cut by its inputs it has the rows of lora_a for its
inputs, and all of lora_b and m. The arrays of layers that are whole are whole on every rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..config import FlowConfig
from ..device.shared import Cut, Range
from ..errors import WeightsError
from ..files.fields import shown
from .changes import LEAVES
from .files import AdapterConfig
from .targets import Target, targets


@dataclass(frozen=True)
class Piece:
    """The part of an array that a rank has."""

    axis: int
    ranges: tuple[Range, ...]  # along the axis

    def taken(self, array: mx.array) -> mx.array:
        """The part of the whole array."""
        parts = [array[a:b] if self.axis == 0 else array[:, a:b] for a, b in self.ranges]
        return mx.contiguous(mx.concatenate(parts, axis=self.axis))

    def placed(self, whole: mx.array, part: mx.array) -> mx.array:
        """The whole array with this part in its place."""
        at = 0
        for a, b in self.ranges:
            if self.axis == 0:
                whole[a:b] = part[at : at + b - a]
            else:
                whole[:, a:b] = part[:, at : at + b - a]
            at += b - a
        return whole

    def length(self) -> int:
        """The size of the part along the axis."""
        return sum(b - a for a, b in self.ranges)


def own_target(target: Target, cut: Cut | None) -> Target:
    """A target as it is in a rank's share of its layer. ``cut``: of the layer."""
    if cut is None:
        return target
    if cut.kind == "columns":
        return dataclasses.replace(target, inputs=sum(b - a for a, b in cut.parts))
    before = sum(max(0, min(b, target.first) - a) for a, b in cut.parts)
    return dataclasses.replace(
        target,
        outputs=sum(b - a for a, b in _outputs(target, cut)),
        first=before,
        whole=sum(b - a for a, b in cut.parts),
    )


def piece_of(target: Target, leaf: str, cut: Cut | None) -> Piece | None:
    """What a rank has of an array of a target, "lora_a", "lora_b" or "m"; None: all of it."""
    if cut is None:
        return None
    if cut.kind == "columns":
        return Piece(0, cut.parts) if leaf == "lora_a" else None
    if leaf == "lora_a":
        return None
    ranges = tuple((a - target.first, b - target.first) for a, b in _outputs(target, cut))
    return Piece(1 if leaf == "lora_b" else 0, ranges)


def pieces(
    config: AdapterConfig, flow: FlowConfig, cuts: Mapping[str, Cut], names: Mapping[str, object]
) -> dict[str, Piece]:
    """What a rank has of the arrays of an adapter called ``names``, by name; arrays that it has all
    of are left out. ``cuts``: of the rank's layers, by their paths in the flow."""
    found: dict[str, Piece | None] = {}
    if config.fine_tune_type == "full":
        for name in names:
            path, _, leaf = name.rpartition(".")
            axis = cuts[path].axis(leaf) if path in cuts else None
            found[name] = None if axis is None else Piece(axis, cuts[path].parts)
    else:
        for target in targets(flow, config.keys, config.num_layers):
            for leaf in LEAVES[config.fine_tune_type]:
                found[f"{target.name}.{leaf}"] = piece_of(target, leaf, cuts.get(target.layer))
    return {name: piece for name, piece in found.items() if piece is not None and name in names}


def check_whole(arrays: Mapping[str, mx.array], cuts: Mapping[str, Cut], file: Path) -> None:
    """Errors: WeightsError naming a weight that is not one of a whole layer. ``cuts``: of the
    rank's layers, by their paths."""
    for name, array in arrays.items():
        path, _, leaf = name.rpartition(".")
        axis = cuts[path].axis(leaf) if path in cuts else None
        if axis is not None and (array.ndim <= axis or array.shape[axis] != cuts[path].whole):
            raise WeightsError(f"{file}: this model has no weights {shown(name)} of shape "
                               f"{array.shape}.")  # fmt: skip


def _outputs(target: Target, cut: Cut) -> list[Range]:
    """The outputs of a target that a rank has, counted in the whole layer."""
    last = target.first + target.outputs
    ranges = [(max(a, target.first), min(b, last)) for a, b in cut.parts]
    return [(a, b) for a, b in ranges if a < b]
