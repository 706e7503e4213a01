"""What an adapter does to a linear layer, in one form for all kinds.

With the weights W (out, in) of a layer, A (in, r), B (r, out) and the adapter's own scale s:

    LoRA (arXiv 2106.09685)   W + s (A B)^T
    DoRA (arXiv 2402.09353)   m (W + s (A B)^T) / |W + s (A B)^T|, by rows

Either is W with its rows multiplied by a gain, plus a matrix of low rank. ``scaled`` takes a share
u of the change (0: none, 1: all of it), and changes of several adapters add up, so that any number
of them is again one gain and one product of low rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..flow import Flow
from .targets import Target

NAMES = ("adapter_a", "adapter_b", "adapter_gain")  # beside a layer's own arrays, see products.py
LEAVES = {"lora": ("lora_a", "lora_b"), "dora": ("lora_a", "lora_b", "m")}


@dataclass(frozen=True)
class Change:
    """gain * (W x) + (x a) b, biases apart."""

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
    """What the arrays (``lora_a``, ``lora_b`` and, for DoRA, ``m``) of one target do to its layer.

    ``dropped`` (in,): factors of the inputs, for dropout. The gradient of DoRA leaves out that of
    the norm, as its paper does.
    """
    a, b = arrays["lora_a"].astype(mx.float32), arrays["lora_b"].astype(mx.float32) * scale
    gain = None
    if "m" in arrays:
        rows = whole_weight(layer)[target.first : target.first + target.outputs]
        norm = mx.stop_gradient(mx.linalg.norm(rows + (a @ b).T, axis=1))
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


def scaled(own: Change, share: float) -> Change:
    """``share`` times a change."""
    if share == 1.0:
        return own
    gain = None if own.gain is None else 1 + share * (own.gain - 1)
    return Change(own.a, own.b * share, gain)


def added(changes: Sequence[Change]) -> Change:
    """All changes of one layer at once."""
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
    """Give a layer this change in place of the one it has; None: no change."""
    for name in NAMES:
        layer.pop(name, None)
    if own is not None:
        layer.adapter_a, layer.adapter_b = own.a, own.b
        if own.gain is not None:
            layer.adapter_gain = own.gain


def whole_weight(layer: nn.Module) -> mx.array:
    """The weights (out, in) of a linear layer in float32, unpacked where they are quantized."""
    weight = layer.weight
    if "scales" in layer:
        weight = mx.dequantize(
            weight, layer.scales, layer.get("biases"),
            group_size=layer.group_size, bits=layer.bits, mode=layer.mode,
        )  # fmt: skip
    return weight.astype(mx.float32)


def merged_weight(layer: nn.Module, own: Change) -> mx.array:
    """The weights (out, in) that do, in float32, what the layer does with this change."""
    weight = whole_weight(layer)
    if own.gain is not None:
        weight = own.gain[:, None] * weight
    return weight + (own.a @ own.b).T


def layers_by_path(flow: Flow) -> dict[str, nn.Module]:
    """Every module of a flow by its path."""
    found: Any = flow.named_modules()  # type: ignore[no-untyped-call]
    return dict(found)


def forget_compiled(flow: Flow) -> None:
    """Drop compiled steps and what was made for them: both hold a block's arrays as constants."""
    for block in flow.blocks:
        block.__dict__.pop("_steps", None)
        block.__dict__.pop("_step_layers", None)
