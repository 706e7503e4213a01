"""The smallest valid TarFlow checkpoint, of which the malicious ones are made."""

from __future__ import annotations

import numpy as np

FILE_NAME = "dots_model_2_64_1_1_0.1.pth"
PATCH, CHANNELS, TOKENS, D = 2, 64, 4, 4


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Its state dict, float32."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (0.05 * random.standard_normal(shape)).astype(np.float32)

    block, layer = "blocks.0.", "blocks.0.attn_blocks.0."
    c = CHANNELS
    result = {
        "var": np.ones((TOKENS, D), np.float32),
        block + "pos_embed": normal(TOKENS, c),
        block + "attn_mask": np.tril(np.ones((TOKENS, TOKENS), np.float32)),
        block + "proj_in.weight": normal(c, D),
        block + "proj_in.bias": normal(c),
        block + "proj_out.weight": normal(2 * D, c),
        block + "proj_out.bias": normal(2 * D),
    }
    for name in ("attention.norm", "mlp.norm"):
        result[f"{layer}{name}.weight"] = np.ones(c, np.float32)
        result[f"{layer}{name}.bias"] = normal(c)
    for name, rows, columns in (
        ("attention.qkv", 3 * c, c),
        ("attention.proj", c, c),
        ("mlp.main.0", 4 * c, c),
        ("mlp.main.2", c, 4 * c),
    ):
        result[f"{layer}{name}.weight"] = normal(rows, columns)
        result[f"{layer}{name}.bias"] = normal(rows)
    return result
