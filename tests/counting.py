"""Count the kernels and casts of a computation, and their sizes, from its graph.

MLX builds its normalizations and attention out of small operations on a CPU and has one kernel for
each on a GPU. ``one_kernel_each`` puts a single operation of the same shape in their place, so that
a graph drawn here has as many kernels as on a GPU.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager

import mlx.core as mx
import pytest

from mlx_starflow.device import activations

# Operations that only say how an array is read: no kernel runs.
VIEWS = {"Reshape", "Transpose", "Slice", "Split", "Broadcast", "ExpandDims", "Squeeze", "Flatten",
         "Unflatten", "AsStrided", "StopGradient", "BroadcastAxes"}  # fmt: skip


def primitives(function, *arguments) -> list[dict]:
    """Every operation of function(*arguments), with names, shapes and types of its inputs and
    outputs. Arrays that are captured count as inputs; the function may take any structure."""
    flat: list[mx.array] = []

    def keep(value):
        if isinstance(value, mx.array):
            place = len(flat)
            flat.append(value)
            return lambda arrays: arrays[place]
        if isinstance(value, list | tuple):
            parts = [keep(v) for v in value]
            return lambda arrays: type(value)(p(arrays) for p in parts)
        if isinstance(value, dict):
            named = {k: keep(v) for k, v in value.items()}
            return lambda arrays: {k: p(arrays) for k, p in named.items()}
        return lambda arrays: value

    rebuilt = [keep(a) for a in arguments]
    found: list[dict] = []

    def flattened(value) -> list[mx.array]:
        if isinstance(value, mx.array):
            return [value]
        parts = value.values() if isinstance(value, dict) else value
        return [a for part in parts for a in flattened(part)]

    @activations.for_export()
    def run(*arrays):
        return flattened(function(*[r(arrays) for r in rebuilt]))

    mx.export_function(
        lambda event: found.append(event) if event["type"] == "primitive" else None, run, *flat
    )
    return found


def casts(found: list[dict], at_least: int) -> list[tuple]:
    """Conversions of arrays of so many numbers or more: (shape, from, to)."""
    sizes = []
    for event in found:
        if event["name"] == "AsType":
            _, shape, old = event["inputs"][0]
            new = event["outputs"][0][2]
            count = 1
            for side in shape:
                count *= side
            if count >= at_least and old != new:
                sizes.append((shape, old, new))
    return sizes


def kernels(path, *outputs) -> Counter:
    """Kernels of a graph that has not been evaluated, by name; ``path``: a file to draw it in."""
    mx.export_to_dot(str(path), *outputs)
    names = re.findall(r'\[label ="([^"]+)"', path.read_text())
    return Counter(name for name in names if name not in VIEWS)


@contextmanager
def one_kernel_each():
    """Norms and attention as single operations, as a GPU has them (their numbers are made up)."""

    def norm(x, *_, **__):
        return mx.cumsum(x, axis=-1)

    def attention(q, k, v, *, scale, mask=None):
        return mx.gather_mm(q, k.swapaxes(-1, -2)) @ v  # two operations: Matmul counts for none

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activations, "LARGE", 1 << 60)  # a CPU's own way of many erf
        patch.setattr(mx.fast, "layer_norm", norm)
        patch.setattr(mx.fast, "rms_norm", norm)
        patch.setattr(mx.fast, "scaled_dot_product_attention", attention)
        yield
