"""Attach one or several adapters, each with a scale, to a flow in memory, and remove them."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from ..device.shared import cut_of
from ..device.typed import parameters_of
from ..errors import ConfigError, WeightsError
from ..files.fields import shown
from ..flow import Flow
from .changes import Change, added, change, forget_compiled, layers_by_path, put_on, scaled
from .files import Adapter, AdapterConfig
from .shares import check_whole, own_target, pieces
from .targets import targets


class Attached:
    """Adapters that are attached to a flow. ``remove`` restores its original weights exactly."""

    def __init__(self, flow: Flow, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Attach ``adapters``, each with its scale: 0 has no effect, 1 is the adapter as trained.
        Errors: WeightsError, ConfigError; after an error the flow is unchanged."""
        self._flow, self._layers = flow, layers_by_path(flow)
        self._own: dict[str, mx.array] = {}  # original weights of the flow that were replaced
        self._changed: list[nn.Module] = []
        try:
            self._put(adapters)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove all adapters from the flow."""
        for layer in self._changed:
            put_on(layer, None)
        for name, array in self._own.items():
            path, _, leaf = name.rpartition(".")
            self._layers[path][leaf] = array
        self._changed, self._own = [], {}
        forget_compiled(self._flow)

    def _put(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        low_rank: dict[str, list[Change]] = {}
        # Whole weights first: DoRA's gain depends on the weights, but must not depend on the order.
        cuts = {path: cut for path, layer in self._layers.items() if (cut := cut_of(layer))}
        for adapter, share in sorted(adapters, key=lambda a: a[0].config.fine_tune_type != "full"):
            arrays = adapter.arrays()
            if adapter.config.fine_tune_type == "full":
                check_whole(arrays, cuts, adapter.file)
            for name, piece in pieces(adapter.config, self._flow.config, cuts, arrays).items():
                arrays[name] = piece.taken(arrays[name])
            if adapter.config.fine_tune_type == "full":
                self._replace(adapter, arrays, share)
                continue
            found = changes_of(self._flow, self._layers, adapter.config, arrays)
            for path, own in found.items():
                low_rank.setdefault(path, []).append(scaled(own, share))
        for path, changes in low_rank.items():
            whole = added(changes)
            mx.eval(whole.a, whole.b, *([] if whole.gain is None else [whole.gain]))
            put_on(self._layers[path], whole)
            self._changed.append(self._layers[path])
        forget_compiled(self._flow)

    def _replace(self, adapter: Adapter, arrays: dict[str, mx.array], share: float) -> None:
        """Replace the flow's weights by those of an adapter of kind "full": each is moved by the
        fraction ``share`` from the original weight towards that of the adapter."""
        own = dict(parameters_of(self._flow))
        for name, array in arrays.items():
            path, _, leaf = name.rpartition(".")
            if name not in own or own[name].shape != array.shape:
                raise WeightsError(
                    f"{adapter.file}: this model has no weights {shown(name)} of shape "
                    f"{array.shape}."
                )
            if "scales" in self._layers[path]:
                raise ConfigError(
                    f"{adapter.path} holds whole weights, which cannot be used with a quantized "
                    "model. Use it with the model it was trained on, or fuse it."
                )
            now, wide = own[name], array.astype(mx.float32)
            if share != 1.0 or name in self._own:
                original = self._own.get(name, now).astype(mx.float32)
                wide = now.astype(mx.float32) + share * (wide - original)
            new = wide.astype(now.dtype)
            mx.eval(new)
            self._own.setdefault(name, now)
            self._layers[path][leaf] = new


def changes_of(
    flow: Flow,
    layers: dict[str, nn.Module],
    config: AdapterConfig,
    arrays: dict[str, mx.array],
    dropped: dict[str, mx.array] | None = None,
) -> dict[str, Change]:
    """The changes that the arrays of one LoRA or DoRA adapter make, by the path of the layer.
    ``dropped``: factors (in,) of the inputs by target, for dropout. All arrays are those of this
    rank, if the flow is a share (adapters/shares.py)."""
    found: dict[str, list[Change]] = {}
    leaves = ("lora_a", "lora_b", "m")
    for target in targets(flow.config, config.keys, config.num_layers):
        own = {leaf: arrays[f"{target.name}.{leaf}"] for leaf in leaves
               if f"{target.name}.{leaf}" in arrays}  # fmt: skip
        if not own:  # the arrays are those of some layers only
            continue
        factors = None if dropped is None else dropped.get(target.name)
        layer = layers[target.layer]
        made = change(own_target(target, cut_of(layer)), layer, own, config.scale, factors)
        found.setdefault(target.layer, []).append(made)
    return {path: added(changes) for path, changes in found.items()}
