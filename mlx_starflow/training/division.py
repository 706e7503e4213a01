"""What a rank has of the trained arrays when the flow is divided into shares of its layers.

Low-rank factors are cut with their layers (adapters/shares.py). The gradient of a factor that every
rank has, but of which each sees a part of the layer only, is the sum over the ranks; the gradients
of all other arrays are complete. Files hold whole arrays, as on one machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import mlx.core as mx
import mlx.optimizers as optim
from mlx.nn import average_gradients

from ..adapters.files import AdapterConfig
from ..adapters.shares import Piece, pieces
from ..adapters.targets import targets
from ..device.shared import Share
from ..errors import UsageError
from ..flow import Flow
from ..flow.shards import flow_cuts, networks
from .parameters import Arrays


class Division:
    """Between whole arrays and those of this rank. For a flow that is whole both are the same."""

    def __init__(self, flow: Flow, config: AdapterConfig, names: Iterable[str]) -> None:
        """``names``: of the trained arrays. Errors: UsageError for what cannot be trained in
        shares."""
        self._share = next((p.share for p in networks(flow) if p.share is not None), None)
        self._pieces: list[dict[str, Piece]] = []  # by rank
        self._partial: frozenset[str] = frozenset()
        if self._share is None:
            return
        size = self._share.size
        if any(block.layers and block.kv_heads % size for block in flow.config.blocks):
            raise UsageError(
                f"A model whose heads of keys and values cannot be divided among {size} ranks can "
                "be sampled and scored in shares, but not trained. Use fewer ranks."
            )
        cuts = [flow_cuts(flow.config, Share(rank, size)) for rank in range(size)]
        names = dict.fromkeys(names)
        self._pieces = [pieces(config, flow.config, own, names) for own in cuts]
        if config.fine_tune_type != "full":
            own = targets(flow.config, config.keys, config.num_layers)
            cut = [f"{t.name}." for t in own if t.layer in cuts[0]]
            self._partial = frozenset(
                name for name in names
                if name.startswith(tuple(cut)) and name not in self._pieces[0]
            )  # fmt: skip

    @property
    def own_pieces(self) -> Mapping[str, Piece]:
        """This rank's part of every array that is cut."""
        return {} if self._share is None else self._pieces[self._share.rank]

    def own(self, arrays: Arrays, names: Mapping[str, str] | None = None) -> Arrays:
        """This rank's part of whole arrays. ``names``: as for ``whole``."""
        found: Arrays = {}
        for key, array in arrays.items():
            piece = self.own_pieces.get(key if names is None else names.get(key, ""))
            found[key] = array if piece is None else piece.taken(array)
        return found

    def whole(self, arrays: Arrays, names: Mapping[str, str] | None = None) -> Arrays:
        """Whole arrays on all ranks. ``names``: of the trained array that each is like, None: its
        own name; an array that is like none is returned as it is."""
        if self._share is None:
            return arrays
        found: Arrays = {}
        for key, array in arrays.items():
            name = key if names is None else names.get(key, "")
            found[key] = self._gathered(name, array) if name in self.own_pieces else array
        return found

    def _gathered(self, name: str, array: mx.array) -> mx.array:
        piece, group = self.own_pieces[name], cast(Share, self._share).group
        mx.eval(array)  # apart from the message, which would have to wait for it
        parts = mx.distributed.all_gather(array[None], group=group)
        shape = list(array.shape)
        shape[piece.axis] = sum(own[name].length() for own in self._pieces)
        whole = mx.zeros(shape, array.dtype)
        for own, part in zip(self._pieces, parts, strict=True):
            whole = own[name].placed(whole, part)
        mx.eval(whole)
        return whole

    def complete(self, slopes: Arrays) -> Arrays:
        """The gradients of this rank's arrays, from those of its part of the layers."""
        names = [name for name in slopes if name in self._partial]
        if self._share is None or not names:
            return slopes
        mx.eval(slopes)
        means = average_gradients([slopes[name] for name in names], self._share.group)
        return slopes | {n: self._share.size * m for n, m in zip(names, means, strict=True)}

    def clipped(self, slopes: Arrays, most: float) -> Arrays:
        """Gradients scaled so that the norm of all of them, on all ranks, is at most ``most``."""
        if self._share is None:
            return optim.clip_grad_norm(slopes, most)[0]
        nothing, parts = mx.array(0.0), self.own_pieces
        common = sum((mx.square(a).sum() for n, a in slopes.items() if n not in parts), nothing)
        cut = sum((mx.square(a).sum() for n, a in slopes.items() if n in parts), nothing)
        mx.eval(common, cut)
        norm = mx.sqrt(common + mx.distributed.all_sum(cut, group=self._share.group))
        factor = mx.minimum(most / (norm + 1e-6), 1.0)
        return {name: a * factor for name, a in slopes.items()}
