"""Merge adapters into the weights of a new bundle, and measure the loss from rounding.

Weights are merged in float32, then rounded to the data type or quantization of the bundle. The loss
is the Kullback-Leibler divergence KL(p || q), with p the model with separate adapters and q the
fused model:

    E[log p(x) - log q(x)],  x drawn from p,

in nats per dimension. Both likelihoods are exact, so it is estimated as the mean of the differences
on the same samples.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..adapters.changes import NAMES, Change, merged_weight, whole_weight
from ..bundle.copying import copy_component, copy_papers
from ..bundle.dtypes import FLOATS
from ..bundle.load import read_json, weight_files, write_component, write_json
from ..bundle.safetensors import read_header
from ..bundle.staging import new_directory
from ..device.typed import layers_of, parameters_of
from ..errors import UsageError
from ..exact.likelihood import log_prob
from ..exact.noise import seeded_noise
from ..flow import Context, Flow
from ..generation.components import Components
from ..generation.context import prompt_rows
from ..sampling import invert


@dataclass(frozen=True)
class FuseReport:
    """The result of ``fuse``. Divergences are in nats per dimension, each with the standard error
    of the mean."""

    path: Path
    samples: int
    loss: float  # KL(model with separate adapters || fused model)
    loss_error: float
    change: float  # KL(model with separate adapters || base model), on the same samples
    change_error: float

    def to_dict(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        return data | {"path": str(self.path)}


def fuse(
    components: Components,
    place: Path,
    dequantize: bool = False,
    prompts: tuple[str, ...] = ("",),
    samples: int = 16,
    seed: int = 0,
) -> FuseReport:
    """Write a bundle at ``place`` with the components' adapters merged into its weights.

    ``dequantize``: write float16 weights in place of quantized ones. ``prompts``: prompts of the
    ``samples`` pictures on which the loss is measured, used in turn. Errors: UsageError if there
    are no adapters or if ``place`` exists; CheckpointError if a file of the bundle cannot be copied
    or is a link that leads outside it.
    """
    if not components.adapters:
        raise UsageError("Name the adapter to fuse with --adapter-path DIR or --lora DIR SCALE.")
    if place.exists():
        raise UsageError(f"--save-path {place} already exists; name a new directory.")
    context = _context(components, prompts, samples)
    side = components.flow_config.grid_size * components.flow_config.patch_size
    shape = (side, side, components.flow_config.in_channels)
    flow = components.flow
    noise = seeded_noise(shape, range(seed, seed + samples))
    x = invert(flow, noise, context, sampler="sequential")
    beside = _log_p(flow, x, context)
    with new_directory(place) as staged:
        _write(components, flow, staged, place.name, dequantize)
        asked = [(adapter.path, scale) for adapter, scale in components.adapters]
        components.set_adapters([])
        alone = _log_p(components.flow, x, context)
        components.set_adapters(asked)
        fused = Components(staged, place.name, components.dtype)
        within = _log_p(fused.flow, x, context)
        fused.drop_all()
    numbers = math.prod(shape)
    loss, loss_error = _mean(beside - within, numbers)
    change, change_error = _mean(beside - alone, numbers)
    return FuseReport(place, samples, loss, loss_error, change, change_error)


def _context(components: Components, prompts: tuple[str, ...], samples: int) -> Context:
    asked = [prompts[i % len(prompts)] for i in range(samples)]
    found = prompt_rows(components, asked).own(asked)
    components.drop("text_encoder")
    return found


def _log_p(flow: Flow, x: mx.array, context: Context) -> np.ndarray:
    """Log-likelihoods (B,) in nats, computed for one picture at a time."""
    own = [None if context is None else context[i : i + 1] for i in range(x.shape[0])]
    return np.array([log_prob(flow, x[i : i + 1], c).item() for i, c in enumerate(own)], float)


def _mean(differences: np.ndarray, numbers: int) -> tuple[float, float]:
    each = differences / numbers
    error = each.std(ddof=1) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return float(each.mean()), float(error)


def _write(components: Components, flow: Flow, staged: Path, name: str, dequantize: bool) -> None:
    source, own = components.directory, components.path("flow")
    copy_papers(source, staged)
    for kind, reference in components.config.components.items():
        if kind != "flow" and not reference.startswith("hub:"):
            copy_component(source, reference, staged)
    settings = read_json(own / "config.json")
    if dequantize:
        settings.pop("quantization", None)
    stored = {t.name: FLOATS.get(t.dtype) for f in weight_files(own) for t in read_header(f)}
    weights = dict(fused_weights(flow, stored, dequantize))
    flow_place = staged / components.config.components["flow"]
    write_component(flow_place, settings, weights)
    about = dataclasses.replace(components.config, name=name, source=None)
    write_json(staged / "config.json", about.to_dict())


def fused_weights(
    flow: Flow, stored: dict[str, mx.Dtype | None], dequantize: bool
) -> dict[str, mx.array]:
    """All weights of a flow with its adapters merged, in the data types ``stored``."""
    found = {n: a for n, a in parameters_of(flow) if n.rpartition(".")[2] not in NAMES}
    for path, layer in layers_of(flow):
        packed, changed = "scales" in layer, "adapter_a" in layer
        if not changed and not (packed and dequantize):
            continue
        if changed:
            gain = layer.get("adapter_gain")
            weight = merged_weight(layer, Change(layer.adapter_a, layer.adapter_b, gain))
        else:
            weight = whole_weight(layer)
        if packed and dequantize:
            found[f"{path}.weight"] = weight.astype(mx.float16)
            for leaf in ("scales", "biases"):
                found.pop(f"{path}.{leaf}", None)
                stored.pop(f"{path}.weight", None)
        elif packed:
            found |= _packed(path, layer, weight)
        else:
            found[f"{path}.weight"] = weight
    return {n: a.astype(stored.get(n) or a.dtype) for n, a in found.items()}


def _packed(path: str, layer: nn.Module, weight: mx.array) -> dict[str, mx.array]:
    parts: Any = mx.quantize(
        weight.astype(layer.scales.dtype),
        group_size=layer.group_size, bits=layer.bits, mode=layer.mode,
    )  # fmt: skip
    names = ("weight", "scales", "biases")
    return {f"{path}.{leaf}": part for leaf, part in zip(names, parts, strict=False)}
