"""TensorFloat-32: whether MLX may round the factors of float32 products on a GPU.

MLX allows it unless ``MLX_ENABLE_TF32=0`` is in the environment when it first multiplies. Products
then keep 10 bits of each factor on chips that can (M5 and later, NVIDIA), some convolutions fewer:
a float32 VAE draws wrong pictures, and decoding an encoding misses by hundreds of times as much. So
importing ``mlx_starflow`` sets the variable to 0, unless it is set to something already.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLE = "MLX_ENABLE_TF32"


def forbid_tf32(environment: MutableMapping[str, str] | None = None) -> None:
    """Ask MLX for float32 products in float32; a choice already made is left alone. Must come
    before MLX multiplies for the first time."""
    environment = os.environ if environment is None else environment
    environment.setdefault(VARIABLE, "0")


def tf32_allowed() -> bool:
    """Whether the environment lets MLX use TensorFloat-32 for float32 products on a GPU."""
    value = os.environ.get(VARIABLE, "1").strip()
    # MLX reads the variable as a number, and text that is none as 0.
    digits = value.removeprefix("-").removeprefix("+")
    return digits.isdigit() and int(digits) != 0


def tf32_in_use() -> str:
    """One phrase for people."""
    if tf32_allowed():
        return f"allowed ({VARIABLE}={os.environ.get(VARIABLE, '1')}): less exact on some GPUs"
    return "off"
