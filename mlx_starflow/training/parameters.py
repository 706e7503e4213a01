"""The trained arrays: kept by name outside the flow, and put into the flow for a pass."""

from __future__ import annotations

import mlx.core as mx

from ..adapters.attached import changes_of
from ..adapters.changes import (
    Change,
    forget_compiled,
    layers_by_path,
    put_on,
    row_norms,
    whole_weight,
)
from ..adapters.files import AdapterConfig
from ..adapters.shares import own_target, piece_of
from ..adapters.targets import targets
from ..device.shared import cut_of
from ..device.typed import parameters_of
from ..errors import UsageError
from ..flow import Flow

Arrays = dict[str, mx.array]
FIXED = ("prior_var",)  # buffers of a flow, which are not trained


class Trained:
    """Creates the trained arrays of a flow and puts them into it."""

    def __init__(self, flow: Flow, config: AdapterConfig) -> None:
        """Errors: UsageError if all weights of a flow that is not float32 are to be trained."""
        self.flow, self.config = flow, config
        self._layers = layers_by_path(flow)
        if config.fine_tune_type == "full" and any(
            array.dtype != mx.float32 for name, array in parameters_of(flow) if _learns(name)
        ):
            raise UsageError(
                "Training of all weights needs float32 weights: give --dtype float32 and no "
                "--quantize, or train an adapter (--fine-tune-type lora)."
            )

    def initial(self, seed: int) -> Arrays:
        """The initial arrays: an adapter that does not change the flow, or the flow's weights. Of
        a flow in shares those of this rank."""
        if self.config.fine_tune_type == "full":
            return {name: array for name, array in parameters_of(self.flow) if _learns(name)}
        found: Arrays = {}
        key = mx.random.key(seed)
        for target in targets(self.flow.config, self.config.keys, self.config.num_layers):
            key, own = mx.random.split(key)
            bound = target.inputs**-0.5
            shape = (target.inputs, self.config.rank)
            layer = self._layers[target.layer]
            here, piece = (
                own_target(target, cut_of(layer)),
                piece_of(target, "lora_a", cut_of(layer)),
            )
            first = mx.random.uniform(-bound, bound, shape, key=own)
            found[f"{target.name}.lora_a"] = first if piece is None else piece.taken(first)
            found[f"{target.name}.lora_b"] = mx.zeros((self.config.rank, here.outputs))
            if self.config.fine_tune_type == "dora":
                rows = whole_weight(layer)[here.first : here.first + here.outputs]
                found[f"{target.name}.m"] = row_norms(layer, rows)
        mx.eval(found)
        return found

    def put(self, arrays: Arrays, key: mx.array | None = None) -> None:
        """Put arrays into the flow; they may be tracers of a gradient transformation. ``key``:
        random key of the dropout, None: no dropout. ``arrays`` may be those of some layers only."""
        if self.config.fine_tune_type == "full":
            for name, array in arrays.items():
                path, _, leaf = name.rpartition(".")
                self._layers[path][leaf] = array
            return
        for path, own in self._changes(arrays, key).items():
            put_on(self._layers[path], own)

    def take_off(self) -> None:
        """Remove the adapter from the flow."""
        if self.config.fine_tune_type != "full":
            for target in targets(self.flow.config, self.config.keys, self.config.num_layers):
                put_on(self._layers[target.layer], None)
        forget_compiled(self.flow)

    def _changes(self, arrays: Arrays, key: mx.array | None) -> dict[str, Change]:
        dropped = None
        if key is not None and self.config.dropout:
            own = targets(self.flow.config, self.config.keys, self.config.num_layers)
            keep = 1 - self.config.dropout
            dropped = {}
            for target, one in zip(own, mx.random.split(key, len(own)), strict=True):
                factors = mx.random.bernoulli(keep, (target.inputs,), one) / keep
                piece = piece_of(target, "lora_a", cut_of(self._layers[target.layer]))
                dropped[target.name] = factors if piece is None else piece.taken(factors)
        return changes_of(self.flow, self._layers, self.config, arrays, dropped)


def _learns(name: str) -> bool:
    """Whether a weight is trained: not a buffer, and not one of a learned denoiser, on which the
    likelihood does not depend."""
    return name not in FIXED and not name.startswith("denoiser.")


def count(arrays: Arrays) -> int:
    """The number of elements in all arrays."""
    return sum(array.size for array in arrays.values())
