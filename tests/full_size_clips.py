"""The released clip checkpoint in full size, a sparse file of zeros, and what it takes to convert
and to run. From the repository's root:

    PYTHONPATH=. python tests/full_size_clips.py convert BIG/starflow-v_7B.pth BIG/out --quantize 4
    PYTHONPATH=. python tests/full_size_clips.py run     BIG/out
    PYTHONPATH=. python tests/full_size_clips.py need    BIG/empty

The checkpoint (27.6 GB; .pth or .safetensors) takes no disk, the bundle its converted size: 13.8 GB
in bfloat16, 3.9 GB in 4 bits. Zeros cost as much to read, cast and write as other numbers. Names,
shapes and YAML are those of the published file.

``run`` loads the converted flow, computes one token of its deep block after the text, with a cache
for one frame, and decodes the first latent frame with a random WAN2.2 autoencoder of the released
size; each in turn, with time and peak of MLX's memory. ``--frames``: latent frames that the cache
has room for. ``--decoded``: latent frames to decode; the second and later ones take three times as
long as the first. ``--side``: of a smaller latent for the autoencoder. ``--small``: everything in
toy size, to try the script.

``need`` lays out the released bundle as sparse files and prints what guided clips at 16:9 are
computed to need on a GPU with --low-ram, as the table of docs/video.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch_files
from full_size import T5, layer_shapes, linear, sparse, watch

from mlx_starflow.hub.known import known_model

D, TEXT, P = 48, 2048, 32


@dataclass(frozen=True)
class Size:
    """Widths and layers of the flow, and widths of the autoencoder."""

    deep: int = 4096
    shallow: int = 3072
    layers: tuple[int, ...] = (2, 2, 2, 2, 2, 24)
    denoiser: int = 8
    vae: tuple[int, int] = (160, 256)
    latent: tuple[int, int] = (30, 53)  # rows and columns at 16:9


SMALL = Size(128, 64, (1, 1, 2), 1, (8, 8), (2, 3))


def shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, buffers included."""
    places = P * P + 256
    table: dict[str, tuple[int, ...]] = {"var": (P * P, D)}
    for i, count in enumerate(size.layers):
        last = i == len(size.layers) - 1
        block, c = f"blocks.{i}.", size.deep if last else size.shallow
        table |= {block + "sos_embed": (1, 1, D), block + "attn_mask": (places, places)}
        table |= network(block, c, count, 2 * D, text=last)
    table |= network("learnable_self_denoiser.", size.shallow, size.denoiser, D, text=True)
    return table | {"feat_rope.freqs_cos": (places, 64), "feat_rope.freqs_sin": (places, 64)}


def network(prefix: str, c: int, layers: int, outputs: int, text: bool) -> dict[str, tuple]:
    table = linear(prefix + "proj_in", c, D) | linear(prefix + "proj_out", outputs, c)
    if text:
        table |= linear(prefix + "proj_txt", c, TEXT)
    for j in range(layers):
        table |= layer_shapes(f"{prefix}attn_blocks.{j}.", c)
    return table | {prefix + "final_norm.weight": (c,)}


class Sparse(io.FileIO):
    """A file that is written, in which ``ZEROS`` are left out."""

    ZEROS = bytes(4 << 20)

    def write(self, data: Any) -> int:
        if memoryview(data).nbytes == len(self.ZEROS) and data is self.ZEROS:
            self.seek(len(data), 1)
            return len(data)
        return super().write(data) or 0


def zeros(name: str, size: int) -> Iterator[bytes]:
    whole, rest = divmod(size, len(Sparse.ZEROS))
    for _ in range(whole):
        yield Sparse.ZEROS
    yield bytes(rest)


def make(path: Path, size: Size) -> int:
    """Write the sparse file and its YAML; the number of tensors."""
    table = shapes(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pth":
        with Sparse(path, "w") as file:
            torch_files.save_streamed(file, table, zeros)
    else:
        _make_safetensors(path, table)
    lines = "".join(f"- {key}: '{value}'\n" for key, value in settings_of(size).items())
    path.with_suffix(".yaml").write_text("arguments:\n" + lines)
    return len(table)


def settings_of(size: Size) -> dict[str, Any]:
    """The published YAML with the widths and layers of a size."""
    return {**known_model("starflow-v").settings, "channels": size.shallow,
            "layers_per_block": " ".join(map(str, size.layers)),
            "top_block_channels": size.deep}  # fmt: skip


def _make_safetensors(path: Path, table: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for name, shape in table.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def convert(checkpoint: Path, output: Path, options: list[str], size: Size) -> dict[str, Any]:
    tensors = make(checkpoint, size)
    config = ["--config", str(checkpoint.with_suffix(".yaml"))]
    command = [sys.executable, "-m", "convert.from_torch", str(checkpoint), "--output", str(output)]
    found = watch([*command, *config, *options])
    written = sum(p.stat().st_size for p in output.rglob("*") if p.is_file())
    facts = checkpoint.stat()
    about = {"tensors": tensors, "source_gb": facts.st_size / 1e9,
             "source_on_disk_gb": facts.st_blocks * 512 / 1e9}  # fmt: skip
    return {**about, "written_gb": written / 1e9, **found}


def run(bundle: Path, frames: int, latents: int, side: int | None, size: Size) -> dict[str, Any]:
    """One token of the deep block, then the first frames of the autoencoder."""
    import mlx.core as mx

    from mlx_starflow.bundle.load import load_component
    from mlx_starflow.config import FlowConfig
    from mlx_starflow.flow import Flow
    from mlx_starflow.flow.grid import Grid
    from mlx_starflow.sampling import SampleOptions
    from mlx_starflow.sampling.conditional import Conditional
    from mlx_starflow.vae import AutoencoderWan, WanConfig

    rows, columns = size.latent
    began = time.monotonic()
    flow = load_component(bundle / "flow", lambda data: Flow(FlowConfig.from_dict(data)))
    loaded = time.monotonic()
    context = mx.random.normal((1, flow.config.text_length, flow.config.text_channels))
    grid = Grid(rows, columns, frames)
    block = Conditional(flow.blocks[-1], grid, context, 1, SampleOptions())
    mx.eval(block.state.arrays())
    text = time.monotonic()
    sigma, b = block.affine(mx.zeros((1, 1, D)), 0)
    mx.eval(sigma, b)
    found: dict[str, Any] = {
        "load_seconds": loaded - began,
        "text_seconds": text - loaded,
        "step_seconds": time.monotonic() - text,
        "flow_peak_gb": mx.get_peak_memory() / 1e9,
        "finite": bool(mx.isfinite(sigma).all().item() and mx.isfinite(b).all().item()),
    }
    del flow, block, sigma, b
    mx.clear_cache()
    mx.reset_peak_memory()
    config = WanConfig(*size.vae, D, (0.0,) * D, (1.0,) * D, 0.6)
    vae = AutoencoderWan(config)
    shape = (1, latents, *((rows, columns) if side is None else (side, side)), D)
    seconds = []
    began = time.monotonic()
    for decoded in vae.decode_stream(mx.random.normal(shape)):
        mx.eval(decoded)
        seconds.append((decoded.shape, time.monotonic() - began))
        began = time.monotonic()
    return found | {
        "decoded": [{"shape": s, "seconds": t} for s, t in seconds],
        "vae_peak_gb": mx.get_peak_memory() / 1e9,
    }


def architecture(size: Size) -> Any:
    """What the converter makes of the published names, shapes and settings."""
    from convert.read.published_yaml import settings_from
    from convert.read.tensor_file import SourceTensor
    from convert.rules.starflow import starflow_architecture

    nothing: Any = None  # no numbers are read
    table = {n: SourceTensor(n, "F32", s, nothing, 0, 0) for n, s in shapes(size).items()}
    return starflow_architecture(table, settings_from(settings_of(size), "video.yaml"), "size", 16)


@contextmanager
def counted_for_a_gpu() -> Iterator[None]:
    """Memory is counted for 16-bit activations, as a GPU has them; a CPU computes in float32."""
    import mlx.core as mx

    device, mx.default_device = mx.default_device, lambda: mx.Device(mx.gpu)
    try:
        yield
    finally:
        mx.default_device = device


def lay_out(folder: Path, recipe: int | str | None, size: Size) -> None:
    """Write the released bundle, converted to bfloat16 or quantized, as sparse files."""
    from mlx_starflow.bundle.load import write_json
    from mlx_starflow.config import ModelConfig
    from mlx_starflow.flow import Flow
    from mlx_starflow.text.t5 import T5Config, T5Encoder
    from mlx_starflow.vae import AutoencoderWan, WanConfig

    found = architecture(size)
    vae = WanConfig(*size.vae, D, (0.0,) * D, (1.0,) * D)
    components = {
        "flow": (found.flow.to_dict(), Flow(found.flow)),
        "vae": (vae.to_dict(), AutoencoderWan(vae)),
        "text_encoder": (T5, T5Encoder(T5Config.from_dict(T5))),
    }
    for name, (config, module) in components.items():
        sparse(folder / name, config, module, recipe)
    bundle = ModelConfig("starflow", image_size=found.image_size, text=found.text,
                         clips=found.clips, defaults=found.defaults,
                         components={n: n for n in components})  # fmt: skip
    write_json(folder / "config.json", bundle.to_dict())


@dataclass(frozen=True)
class Row:
    """A clip's need in gigabytes. The lists are by bits of the keys: 16, 8 and 4."""

    frames: int
    keys: tuple[float, ...]  # of the deep block
    peak: dict[str, tuple[float, ...]]  # by precision of the weights
    tiled: dict[str, tuple[float, ...]]  # with --vae-tiling


def need(folder: Path, size: Size) -> list[Row]:
    """The needs of guided clips of several lengths, with --low-ram."""
    from mlx_starflow.generation.components import Components
    from mlx_starflow.generation.memory_need import KEPT_IN, keys_bytes, memory_need
    from mlx_starflow.generation.settings import resolve

    rows = {frames: Row(frames, (), {}, {}) for frames in (17, 33, 49, 81)}
    for recipe in (None, 4):
        lay_out(folder, recipe, size)
        parts = Components(folder, "", "bfloat16", None)
        flow, name = parts.flow_config, "bfloat16" if recipe is None else f"{recipe}-bit"
        for frames, row in rows.items():
            peaks: dict[bool, tuple[float, ...]] = {}
            for tiled in (False, True):
                for bits in KEPT_IN:
                    asked = resolve(parts.config, flow, parts.factor, "a fox in snow", 1,
                                    aspect_ratio="16:9", frames=frames, kv_bits=bits,
                                    vae_tiling=tiled)  # fmt: skip
                    with counted_for_a_gpu():
                        peak = memory_need(parts, asked, stored=True).peak(True) / 1e9
                    peaks[tiled] = (*peaks.get(tiled, ()), peak)
            row.peak[name], row.tiled[name] = peaks[False], peaks[True]
            grid = (asked.height // parts.factor) * (asked.width // parts.factor)
            places = flow.text_length + grid * parts.config.clips.latent_frames(frames)
            found = (
                keys_bytes(flow.blocks[-1], places, 2, item) / 1e9 for item in KEPT_IN.values()
            )
            rows[frames] = dataclasses.replace(row, keys=tuple(found))
        shutil.rmtree(folder)
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("convert", "run", "need"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--decoded", type=int, default=1)
    parser.add_argument("--side", type=int)
    parser.add_argument("--small", action="store_true")
    arguments, rest = parser.parse_known_args()
    size = SMALL if arguments.small else Size()
    if arguments.what == "convert":
        found = convert(*arguments.paths[:2], rest, size)
    elif arguments.what == "need":
        found = [dataclasses.asdict(row) for row in need(arguments.paths[0], size)]
    else:
        found = run(arguments.paths[0], arguments.frames, arguments.decoded, arguments.side, size)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
