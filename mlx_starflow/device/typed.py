"""MLX functions with more precise type hints than MLX declares."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten


def scalar(x: mx.array) -> float:
    """The number in an array of size 1. Waits for the device."""
    return x.item()  # type: ignore[return-value]


def parameters_of(module: nn.Module) -> list[tuple[str, mx.array]]:
    """Names and arrays of all parameters of a module."""
    found: Any = tree_flatten(module.parameters())
    return list(found)


def layers_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Paths and modules of the layers that contain no other layers."""
    found: Any = tree_flatten(module.leaf_modules(), is_leaf=nn.Module.is_module)
    return list(found)
