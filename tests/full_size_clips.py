"""The released clip checkpoint in full size, a sparse file of zeros, and what it takes to convert.

Takes no disk for the checkpoint and the converted size for the bundle. From the repository's root:

    PYTHONPATH=. python tests/full_size_clips.py BIG/starflow-v_7B.safetensors BIG/out --quantize 4

Zeros cost as much to read, cast and write as other numbers. Names, shapes and YAML are those of the
published file, which is a .pth; the reading of .pth files is measured by ``full_size.py``.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
from full_size import layer_shapes, linear, watch

from mlx_starflow.hub.known import known_model

DEEP, SHALLOW, D, TEXT, P = 4096, 3072, 48, 2048, 32
LAYERS = (2, 2, 2, 2, 2, 24)


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, buffers included."""
    places = P * P + 256
    table: dict[str, tuple[int, ...]] = {"var": (P * P, D)}
    for i, count in enumerate(LAYERS):
        last = i == len(LAYERS) - 1
        block, c = f"blocks.{i}.", DEEP if last else SHALLOW
        table |= {block + "sos_embed": (1, 1, D), block + "attn_mask": (places, places)}
        table |= network(block, c, count, 2 * D, text=last)
    table |= network("learnable_self_denoiser.", SHALLOW, 8, D, text=True)
    return table | {"feat_rope.freqs_cos": (places, 64), "feat_rope.freqs_sin": (places, 64)}


def network(prefix: str, c: int, layers: int, outputs: int, text: bool) -> dict[str, tuple]:
    table = linear(prefix + "proj_in", c, D) | linear(prefix + "proj_out", outputs, c)
    if text:
        table |= linear(prefix + "proj_txt", c, TEXT)
    for j in range(layers):
        table |= layer_shapes(f"{prefix}attn_blocks.{j}.", c)
    return table | {prefix + "final_norm.weight": (c,)}


def make(path: Path) -> int:
    """Write the sparse file and its YAML; the number of tensors."""
    header, end = {}, 0
    for name, shape in shapes().items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    settings = {**known_model("starflow-v").settings, "layers_per_block": "2 2 2 2 2 24",
                "channels": SHALLOW, "top_block_channels": DEEP}  # fmt: skip
    lines = "".join(f"- {key}: '{value}'\n" for key, value in settings.items())
    path.with_suffix(".yaml").write_text("arguments:\n" + lines)
    return len(header)


def main() -> None:
    checkpoint, output, *options = sys.argv[1:]
    tensors = make(Path(checkpoint))
    command = [sys.executable, "-m", "convert.from_torch", checkpoint, "--output", output]
    found = watch([*command, *options])
    written = sum(p.stat().st_size for p in Path(output).rglob("*") if p.is_file())
    about = {"tensors": tensors, "source_gb": Path(checkpoint).stat().st_size / 1e9}
    print(json.dumps({**about, "written_gb": written / 1e9, **found}, indent=1))


if __name__ == "__main__":
    main()
