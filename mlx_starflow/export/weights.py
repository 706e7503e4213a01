"""Weights that were stored in 16 bits are exported in 16 bits and converted when a function runs.

On a CPU, weights are converted to float32 when a model is loaded, without loss. Exported as such
they would double the size of the file. A function that runs once per picture can afford to convert
them itself; a step, which runs for every token, cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..device.typed import parameters_of, scalar


class Narrow:
    """The float32 parameters of modules that 16 bits hold exactly."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._parts = [(module, _narrowed(module)) for module in modules]

    @contextmanager
    def widened(self) -> Iterator[None]:
        """Inside, while MLX traces a function, the parameters are conversions of 16-bit ones."""
        before = [(module, dict(parameters_of(module))) for module, _ in self._parts]
        for module, narrow in self._parts:
            _set(module, {name: a.astype(mx.float32) for name, a in narrow.items()})
        try:
            yield
        finally:
            for module, parameters in before:
                _set(module, parameters)


def _narrowed(module: nn.Module) -> dict[str, mx.array]:
    found = {}
    for name, array in parameters_of(module):
        if array.dtype != mx.float32:
            continue
        for kind in (mx.float16, mx.bfloat16):
            narrow = array.astype(kind)
            if scalar((narrow.astype(mx.float32) == array).all()):
                found[name] = narrow
                break
    mx.eval(list(found.values()))
    return found


def _set(module: nn.Module, parameters: dict[str, mx.array]) -> None:
    module.update(tree_unflatten(list(parameters.items())))
