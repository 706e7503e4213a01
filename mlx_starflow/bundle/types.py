"""The default dtype of a component, used where the caller names none.

- On a CPU, where 16-bit products are slow: float32.
- On a GPU: a flow and its text encoder as they are stored, but float16 instead of bfloat16 if its
  range suffices; a small flow in float32.
- A VAE is always float32.

float16 has 3 more bits of precision than bfloat16 and is as fast, or faster on chips without
bfloat16 arithmetic, but its range is smaller. The input of every matrix of a flow is normalized, so
its weights give an upper bound on every product, and the bound decides. T5 as implemented here is
safe in float16, since its residual stream and its largest product stay in float32. Gemma is not.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import on_gpu
from ..device.typed import layers_of, parameters_of, scalar
from .quantize import takes_type

# Flows up to this size (bytes in float32) stay float32: 16 bits would save little time.
SMALL = 256 << 20
LARGEST_HALF = 65504.0  # largest finite float16


def default_type(kind: str, bytes_in_float32: int, quantized: bool) -> mx.Dtype | None:
    """The default dtype of a component: float32, or None for "as stored"."""
    if not on_gpu():
        return mx.float32
    return mx.float32 if kind == "flow" and bytes_in_float32 <= SMALL and not quantized else None


def settle_half(module: nn.Module, kind: str, config: dict[str, Any]) -> None:
    """Convert the bfloat16 matrices of a loaded component, and the scales and biases of quantized
    ones, to float16 in place if the range of float16 suffices. One tensor at a time. Used on a GPU
    when no dtype was chosen."""
    allowed = half_is_safe(module, kind, config)
    for path, leaf in layers_of(module):
        for name, old in (
            ("weight", mx.bfloat16), ("scales", mx.bfloat16), ("biases", mx.bfloat16),
            ("scales", mx.float32), ("biases", mx.float32),
        ):  # fmt: skip
            value = leaf.get(name)
            if value is None or value.dtype != old or not takes_type(kind, f"{path}.{name}"):
                continue
            if allowed or (old == mx.float32 and _fits(value)):
                leaf[name] = value.astype(mx.float16)
                mx.eval(leaf[name])


def half_is_safe(module: nn.Module, kind: str, config: dict[str, Any]) -> bool:
    """Whether all products of a component stay in the range of float16 for every input."""
    if kind == "text":
        matrices = [
            value for _, value in parameters_of(module) if value.dtype in (mx.bfloat16, mx.float16)
        ]
        return config.get("model_type") == "t5" and all(_fits(m) for m in matrices)
    largest = getattr(module, "largest_product", None)
    return largest is not None and largest() < LARGEST_HALF


def _fits(value: mx.array) -> bool:
    return scalar(mx.abs(value).max()) < LARGEST_HALF
