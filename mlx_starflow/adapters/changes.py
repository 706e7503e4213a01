"""The change that an adapter makes to a linear layer, in one form for LoRA and DoRA.

With the weights W (out, in) of a layer, A (in, r), B (r, out) and the adapter's own scale s:

    LoRA (arXiv 2106.09685)   W + s (A B)^T
    DoRA (arXiv 2402.09353)   m (W + s (A B)^T) / |W + s (A B)^T|, by rows

Both multiply the rows of W by a gain and add a low-rank matrix. ``scaled`` multiplies the change by
a factor (0: no change, 1: the full change). The changes of several adapters are added, so that any
number of adapters is again one gain and one low-rank product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..device.shared import added_up, gathers
from ..flow import Flow
from .targets import Target

NAMES = ("adapter_a", "adapter_b", "adapter_gain")  # arrays added to a layer, see products.py
LEAVES = {"lora": ("lora_a", "lora_b"), "dora": ("lora_a", "lora_b", "m")}


@dataclass(frozen=True)
class Change:
    """A changed layer computes gain * (W x) + (x a) b, plus its bias, which is not changed."""

    a: mx.array  # (in, r)
    b: mx.array  # (r, out)
    gain: mx.array | None = None  # (out,), None: 1


def change(
    target: Target,
    layer: nn.Module,
    arrays: dict[str, mx.array],
    scale: float,
    dropped: mx.array | None = None,
) -> Change:
    """The change that the arrays of one target (``lora_a``, ``lora_b`` and, for DoRA, ``m``) make
    to its layer.

    All are those of this rank, if the layer is a share (adapters/shares.py).
    ``dropped`` (in,): factors of the inputs, for dropout. As in the paper of DoRA, the gradient
    treats its norm as a constant.
    """
    a, b = arrays["lora_a"].astype(mx.float32), arrays["lora_b"].astype(mx.float32) * scale
    gain = None
    if "m" in arrays:
        rows = whole_weight(layer)[target.first : target.first + target.outputs]
        norm = mx.stop_gradient(row_norms(layer, rows + (a @ b).T))
        gain = arrays["m"].astype(mx.float32) / norm
        b = b * gain
    if dropped is not None:
        a = a * dropped[:, None]
    after = target.whole - target.first - target.outputs
    if target.outputs != target.whole:
        b = mx.pad(b, [(0, 0), (target.first, after)])
        if gain is not None:
            gain = mx.pad(gain, [(target.first, after)], constant_values=1.0)
    return Change(a, b, gain)


def row_norms(layer: nn.Module, rows: mx.array) -> mx.array:
    """The norms (out,) of the rows of a matrix (out, in) of a layer. Of a layer that is cut by its
    inputs every rank has a part of each row."""
    if not gathers(layer):
        return mx.linalg.norm(rows, axis=1)
    return mx.sqrt(added_up(layer, mx.square(rows).sum(axis=1)))


def scaled(own: Change, share: float) -> Change:
    """A change multiplied by ``share``."""
    if share == 1.0:
        return own
    gain = None if own.gain is None else 1 + share * (own.gain - 1)
    return Change(own.a, own.b * share, gain)


def added(changes: Sequence[Change]) -> Change:
    """The sum of several changes of one layer."""
    if len(changes) == 1:
        return changes[0]
    gains = [c.gain for c in changes if c.gain is not None]
    gain = sum((g - 1 for g in gains[1:]), gains[0]) if gains else None
    return Change(
        mx.concatenate([c.a for c in changes], axis=1),
        mx.concatenate([c.b for c in changes], axis=0),
        gain,
    )


def put_on(layer: nn.Module, own: Change | None) -> None:
    """Replace the change of a layer; None removes it."""
    for name in NAMES:
        layer.pop(name, None)
    if own is not None:
        layer.adapter_a, layer.adapter_b = own.a, own.b
        if own.gain is not None:
            layer.adapter_gain = own.gain


def whole_weight(layer: nn.Module) -> mx.array:
    """The weights (out, in) of a linear layer in float32, dequantized if they are quantized."""
    weight = layer.weight
    if "scales" in layer:
        weight = mx.dequantize(
            weight, layer.scales, layer.get("biases"),
            group_size=layer.group_size, bits=layer.bits, mode=layer.mode,
        )  # fmt: skip
    return weight.astype(mx.float32)


def merged_weight(layer: nn.Module, own: Change) -> mx.array:
    """The weights (out, in), in float32, of a layer that is equivalent to this layer with this
    change."""
    weight = whole_weight(layer)
    if own.gain is not None:
        weight = own.gain[:, None] * weight
    return weight + (own.a @ own.b).T


def layers_by_path(flow: Flow) -> dict[str, nn.Module]:
    """Every module of a flow by its path."""
    found: Any = flow.named_modules()  # type: ignore[no-untyped-call]
    return dict(found)


def forget_compiled(flow: Flow) -> None:
    """Drop compiled steps and the arrays prepared for them, which contain a block's old weights as
    constants."""
    for block in flow.blocks:
        block.__dict__.pop("_steps", None)
        block.__dict__.pop("_step_layers", None)
