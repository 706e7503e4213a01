"""The type that a component computes in where nobody names one.

- On a CPU, where 16-bit products are slow: float32.
- On a GPU, a flow and its text encoder as they are stored, but bfloat16 as float16 where its range
  allows; a small flow in float32.
- A VAE always in float32.

float16 is eight times as exact as bfloat16 and as fast, or faster on chips without bfloat16
arithmetic; what it lacks is range. A flow's products are bounded by its own weights (a norm stands
before every matrix), so whether they can leave float16's range is computed and not tried. T5 is
made for it: its residual stream and the product that grows stay in float32. Gemma is not.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import on_gpu
from ..device.typed import layers_of, parameters_of, scalar
from .quantize import takes_type

SMALL = (
    256 << 20
)  # bytes of a flow in float32 up to which 16 bits gain no time worth their rounding
LARGEST_HALF = 65504.0


def default_type(kind: str, bytes_in_float32: int, quantized: bool) -> mx.Dtype | None:
    """float32 where that is what a component computes in by default, None: as stored."""
    if not on_gpu():
        return mx.float32
    return mx.float32 if kind == "flow" and bytes_in_float32 <= SMALL and not quantized else None


def settle_half(module: nn.Module, kind: str, config: dict[str, Any]) -> None:
    """Turn the bfloat16 matrices of a loaded component to float16 where its range allows, and the
    float32 scales of quantized ones, one tensor at a time. Only for a GPU's default."""
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
    """Whether all products of a component stay within float16's range whatever its input."""
    if kind == "text":
        matrices = [
            value for _, value in parameters_of(module) if value.dtype in (mx.bfloat16, mx.float16)
        ]
        return config.get("model_type") == "t5" and all(_fits(m) for m in matrices)
    largest = getattr(module, "largest_product", None)
    return largest is not None and largest() < LARGEST_HALF


def _fits(value: mx.array) -> bool:
    return scalar(mx.abs(value).max()) < LARGEST_HALF
