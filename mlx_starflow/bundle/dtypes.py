"""Names of dtypes: for users, in MLX, and in safetensors files."""

from __future__ import annotations

import mlx.core as mx

from ..errors import UsageError

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
CODES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32"}
FLOATS = {CODES[dtype]: dtype for dtype in DTYPES.values()}
FLOAT_CODES = tuple(FLOATS)


def dtype_named(name: str, option: str = "dtype") -> mx.Dtype:
    """The MLX dtype of a name such as "float16". Errors: UsageError naming ``option``."""
    if name not in DTYPES:
        raise UsageError(f"{option} is {name!r}; expected one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def code_named(name: str, option: str = "dtype") -> str:
    """The safetensors code of a name: "F16" for "float16". Errors: UsageError naming ``option``."""
    return CODES[dtype_named(name, option)]
