"""MLX functions whose own type hints are too wide, with exact ones."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten


def scalar(x: mx.array) -> float:
    """The one number of an array of size 1. Waits for the device."""
    return x.item()  # type: ignore[return-value]


def parameters_of(module: nn.Module) -> list[tuple[str, mx.array]]:
    """Names and arrays of all parameters of a module."""
    found: Any = tree_flatten(module.parameters())
    return list(found)


def layers_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Paths and modules of the layers that have no layers of their own."""
    found: Any = tree_flatten(module.leaf_modules(), is_leaf=nn.Module.is_module)
    return list(found)
