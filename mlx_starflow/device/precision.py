"""TensorFloat-32: whether MLX may round the factors of float32 products on a GPU.

MLX allows it unless ``MLX_ENABLE_TF32=0`` is in the environment at its first product. On chips
that support it (M5 and later, NVIDIA) each factor then keeps 10 bits of its mantissa, in some
convolutions fewer: a float32 VAE makes wrong pictures, and the error of encoding followed by
decoding is hundreds of times larger. Importing ``mlx_starflow`` therefore sets the variable to 0,
unless it is already set.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLE = "MLX_ENABLE_TF32"


def forbid_tf32(environment: MutableMapping[str, str] | None = None) -> None:
    """Set ``MLX_ENABLE_TF32=0`` unless the variable is already set. Must be called before MLX
    computes its first product."""
    environment = os.environ if environment is None else environment
    environment.setdefault(VARIABLE, "0")


def tf32_allowed() -> bool:
    """Whether the environment allows MLX to use TensorFloat-32 for float32 products on a GPU."""
    value = os.environ.get(VARIABLE, "1").strip()
    # MLX reads the variable as an integer; any other text is 0.
    digits = value.removeprefix("-").removeprefix("+")
    return digits.isdigit() and int(digits) != 0


def tf32_in_use() -> str:
    """Whether TF32 is allowed, as a phrase for users: "off", or "allowed (...)"."""
    if tf32_allowed():
        return f"allowed ({VARIABLE}={os.environ.get(VARIABLE, '1')}): less exact on some GPUs"
    return "off"
