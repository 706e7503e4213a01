"""Adapters on a flow in memory: put on, at any scale, several at once, and taken off again."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from ..device.typed import parameters_of
from ..errors import ConfigError, WeightsError
from ..files.fields import shown
from ..flow import Flow
from .changes import Change, added, change, forget_compiled, layers_by_path, put_on, scaled
from .files import Adapter, AdapterConfig
from .targets import targets


class Attached:
    """Adapters that are on a flow. ``remove`` gives the flow its own numbers back, to the bit."""

    def __init__(self, flow: Flow, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Each with its scale: 0 is without it, 1 as it was trained. Errors: WeightsError,
        ConfigError; the flow is then as it was."""
        self._flow, self._layers = flow, layers_by_path(flow)
        self._own: dict[str, mx.array] = {}  # of the flow, in the place of which others stand
        self._changed: list[nn.Module] = []
        try:
            self._put(adapters)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take all of them off."""
        for layer in self._changed:
            put_on(layer, None)
        for name, array in self._own.items():
            path, _, leaf = name.rpartition(".")
            self._layers[path][leaf] = array
        self._changed, self._own = [], {}
        forget_compiled(self._flow)

    def _put(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        low_rank: dict[str, list[Change]] = {}
        # Whole weights first: what DoRA's gain is made from must not depend on the order.
        for adapter, share in sorted(adapters, key=lambda a: a[0].config.fine_tune_type != "full"):
            arrays = adapter.arrays()
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
        """Weights moved by a share of the way from the flow's own to the adapter's."""
        own = dict(parameters_of(self._flow))
        for name, array in arrays.items():
            path, _, leaf = name.rpartition(".")
            if name not in own or own[name].shape != array.shape:
                raise WeightsError(
                    f"{adapter.file}: the weights {shown(name)} of shape {array.shape} have no "
                    "place in this model."
                )
            if "scales" in self._layers[path]:
                raise ConfigError(
                    f"{adapter.path} holds whole weights, which a quantized model cannot take. "
                    "Use it with the model it was made from, or fuse it."
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
    """By path of a layer, the change that the arrays of one LoRA or DoRA make. ``dropped``: factors
    of the inputs by target, for dropout."""
    found: dict[str, list[Change]] = {}
    leaves = ("lora_a", "lora_b", "m")
    for target in targets(flow.config, config.keys, config.num_layers):
        own = {leaf: arrays[f"{target.name}.{leaf}"] for leaf in leaves
               if f"{target.name}.{leaf}" in arrays}  # fmt: skip
        if not own:  # arrays of some layers only
            continue
        factors = None if dropped is None else dropped.get(target.name)
        made = change(target, layers[target.layer], own, config.scale, factors)
        found.setdefault(target.layer, []).append(made)
    return {path: added(changes) for path, changes in found.items()}
