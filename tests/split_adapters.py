"""Adapters on flows in shares against those on whole ones, for ``split_programs``."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_starflow.adapters.attached import Attached
from mlx_starflow.adapters.files import AdapterConfig, Base, expected
from mlx_starflow.config import FlowConfig
from mlx_starflow.flow import Flow
from mlx_starflow.flow.shards import networks
from mlx_starflow.sampling import invert
from mlx_starflow.training.division import Division
from mlx_starflow.training.gradient import gradient
from mlx_starflow.training.parameters import Trained


def inputs(config: FlowConfig, rows: int = 2):
    """Noise, and the context for guidance, of a family."""
    key = mx.random.key(5)
    side = config.grid_size * config.patch_size
    frames = (3,) if config.frames > 1 else ()
    z = mx.random.normal((rows, *frames, side, side, config.in_channels), key=key)
    if config.text_channels:
        context = mx.random.normal((2 * rows, config.text_length, config.text_channels), key=key)
        return z, context, context[:rows]
    if config.num_classes:
        labels = mx.arange(rows) % config.num_classes
        return z, labels, labels
    return z, None, None


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / max(1.0, np.abs(one).max()))


KINDS = {
    "lora": dict(rank=3),
    "dora": dict(rank=2, keys=("attention.k", "attention.v", "attention.proj", "mlp.down")),
    "full": dict(keys=("mlp.up",)),
}


class Random:
    """Stands for an ``Adapter``: the arrays are random numbers instead of those of a file."""

    path, file = "random", Path("random")

    def __init__(self, kind: str, flow: Flow) -> None:
        """``flow``: a whole one."""
        self.config = AdapterConfig(Base("", ""), kind, scale=2.0, **KINDS[kind])
        named = dict(tree_flatten(flow.parameters()))
        if kind == "full":
            shapes = {k: a.shape for k, a in named.items() if k != "prior_var"}
        else:
            shapes = expected(self.config, flow.config)
        keys = mx.random.split(mx.random.key(len(shapes)), len(shapes))
        self._arrays = {
            name: 0.1 * mx.random.normal(shape, key=key) + (1.0 if name.endswith(".m") else 0.0)
            for (name, shape), key in zip(shapes.items(), keys, strict=True)
        }

    def arrays(self) -> dict[str, mx.array]:
        return dict(self._arrays)


def with_adapters(whole: Flow, parts: Flow) -> dict[str, float]:
    """How far latents, samples and gradients of the trained arrays are from those of one process,
    with an adapter of each kind; the sample with all of them."""
    z, _, own = inputs(whole.config)
    found: dict[str, float] = {}
    divisible_kv = all(p.config.kv_heads % p.share.size == 0 for p in networks(parts))
    adapters = {kind: Random(kind, whole) for kind in KINDS}
    for kind in (*KINDS, "all"):
        asked = [(own, 0.8) for k, own in adapters.items() if kind in ("all", k)]
        one, two = Attached(whole, asked), Attached(parts, asked)
        (x, logdet), (y, other) = whole(z, own), parts(z, own)
        found[kind] = max(difference(np.array(x), np.array(y)),
                          difference(np.array(logdet), np.array(other)))  # fmt: skip
        if kind == "all":
            a, b = (invert(f, z, own, sampler="sequential", compile=True) for f in (whole, parts))
            found["sample"] = difference(np.array(a), np.array(b))
        one.remove(), two.remove()
        if kind != "all" and divisible_kv:
            found |= gradients(whole, parts, adapters[kind], z, own)
    return found


def gradients(whole: Flow, parts: Flow, adapter: Random, x: mx.array, own) -> dict[str, float]:
    """How far the gradients of an adapter's arrays, and arrays gathered from their shares, are from
    those of one process, computed at once and layer by layer."""
    found, kind = {}, adapter.config.fine_tune_type
    for checkpoint in (False, True):
        slopes = []
        for flow in (whole, parts):
            trained = Trained(flow, adapter.config)
            before = trained.initial(0)
            arrays = {name: adapter.arrays()[name] for name in before}
            division = Division(flow, adapter.config, before)
            mine = division.own(arrays)
            gathered = division.whole(mine)
            assert all(mx.array_equal(gathered[n], a) for n, a in arrays.items())
            _, slope = gradient(trained, mine, x, own, checkpoint, mx.random.key(3))
            slopes.append(division.whole(division.complete(slope)))
            trained.put(before) if kind == "full" else trained.take_off()
        found[f"{kind} gradient{' by layers' * checkpoint}"] = max(
            difference(np.array(slopes[0][name]), np.array(slopes[1][name])) for name in slopes[0]
        )
    return found
