"""The released text-to-image checkpoint in full size, made of cheap numbers, and what converting
it costs. Needs about 45 GB of disk and no PyTorch. From the repository's root:

    PYTHONPATH=. python tests/full_size.py make     BIG/starflow_3B_t2i_256x256.pth
    PYTHONPATH=. python tests/full_size.py measure  BIG/starflow_3B_t2i_256x256.pth BIG/out \\
        --dtype bfloat16
    PYTHONPATH=. python tests/full_size.py forward  BIG/out
    PYTHONPATH=. python tests/full_size.py need     BIG/empty

``measure`` converts in a process of its own and watches it: peak resident memory in total, the part
that the process holds (RssAnon), and the part that is pages of mapped files, which the kernel takes
back when it needs them (RssFile). It also copies the file with cp. ``need`` lays out
the released pipeline as sparse files and prints what making a picture is computed to need.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch_files

if TYPE_CHECKING:
    from mlx_starflow.generation.memory import MemoryPlan

YAML = """arguments:
- img_size: 256
- txt_size: 128
- channel_size: 4
- patch_size: 1
- channels: {channels}
- blocks: {blocks}
- layers_per_block: {layers}
- noise_std: 0.3
- rope: 1
- sos: 1
- seq_order: L2R
- use_softplus: 1
- cond_top_only: 1
- use_final_norm: 1
- soft_clip: 4
- vae: stabilityai/sd-vae-ft-ema
- text: google/flan-t5-xl
"""
RELEASED = {"channels": 3072, "layers": (2, 2, 2, 2, 2, 24)}
TEXT, TOKENS, D = 2048, 1024, 4
SCALES = ("scales", "biases")
HUGE = 10**15
T5 = {  # google/flan-t5-xl
    "model_type": "t5",
    "d_model": 2048,
    "d_kv": 64,
    "d_ff": 5120,
    "num_heads": 32,
    "num_layers": 24,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}


def shapes(channels: int, layers: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, buffers included."""
    c, rows = channels, TOKENS + 128
    result: dict[str, tuple[int, ...]] = {"var": (TOKENS, D)}
    for i, count in enumerate(layers):
        block = f"blocks.{i}."
        result |= {block + "sos_embed": (1, 1, D), block + "attn_mask": (rows, rows)}
        result |= linear(block + "proj_in", c, D) | linear(block + "proj_out", 2 * D, c)
        if i == len(layers) - 1:
            result |= linear(block + "proj_txt", c, TEXT)
        for j in range(count):
            result |= layer_shapes(f"{block}attn_blocks.{j}.", c)
        result[block + "final_norm.weight"] = (c,)
    return result | {"feat_rope.freqs_cos": (rows, 64), "feat_rope.freqs_sin": (rows, 64)}


def layer_shapes(prefix: str, c: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one layer of c channels."""
    table: dict[str, tuple[int, ...]] = {}
    for name in ("attention.norm", "mlp.norm"):
        table |= {f"{prefix}{name}.weight": (c,), f"{prefix}{name}.bias": (c,)}
    table |= linear(prefix + "attention.qkv", 3 * c, c) | linear(prefix + "attention.proj", c, c)
    return table | linear(prefix + "mlp.main.0", 4 * c, c) | linear(prefix + "mlp.main.2", c, 4 * c)


def linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {name + ".weight": (rows, columns), name + ".bias": (rows,)}


def make(path: Path, channels: int, layers: tuple[int, ...]) -> int:
    """Write checkpoint and YAML; returns the number of parameters."""
    block = np.random.default_rng(0).standard_normal(4 << 20).astype(np.float32) * 0.02
    noise = memoryview(block).cast("B")

    def fill(name: str, size: int) -> Iterator[memoryview]:
        while size:
            yield noise[: min(size, noise.nbytes)]
            size -= min(size, noise.nbytes)

    table = shapes(channels, layers)
    torch_files.save_streamed(path, table, fill)
    text = YAML.format(channels=channels, blocks=len(layers), layers=" ".join(map(str, layers)))
    path.with_suffix(".yaml").write_text(text)
    buffers = ("var", "attn_mask", "freqs_cos", "freqs_sin")
    return sum(int(np.prod(s)) for n, s in table.items() if n.split(".")[-1] not in buffers)


def watch(command: list[str]) -> dict[str, float]:
    """Run a command under /usr/bin/time -v; its time and the peaks of its memory, in GB."""
    timed = Path("/usr/bin/time")
    prefix = [str(timed), "-v"] if timed.exists() else []
    began = time.monotonic()
    process = subprocess.Popen(prefix + command, stderr=subprocess.PIPE, text=True)
    peaks = {"RssAnon": 0, "RssFile": 0, "VmHWM": 0}
    while process.poll() is None:
        for pid in (process.pid, *children(process.pid)):
            for key, value in memory(pid).items():
                peaks[key] = max(peaks[key], value)
        time.sleep(0.02)
    errors = process.stderr.read()
    if process.returncode:
        sys.exit(errors)
    found = {key: value / 1e6 for key, value in peaks.items()}
    for line in errors.splitlines():
        if "Maximum resident" in line:
            found["time -v maximum resident"] = int(line.split()[-1]) / 1e6
    return {"seconds": time.monotonic() - began, **found}


def children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def memory(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {k: int(fields[k].split()[0]) for k in ("RssAnon", "RssFile", "VmHWM") if k in fields}


def measure(checkpoint: Path, output: Path, options: list[str]) -> dict[str, object]:
    copy = checkpoint.with_suffix(".copy")
    began = time.monotonic()
    subprocess.run(["cp", str(checkpoint), str(copy)], check=True)
    subprocess.run(["sync", str(copy)], check=True)
    copied = time.monotonic() - began
    copy.unlink()
    command = [sys.executable, "-m", "convert.from_torch", str(checkpoint)]
    found = watch([*command, "--output", str(output), *options])
    written = sum(p.stat().st_size for p in output.rglob("*") if p.is_file())
    return {
        "options": options,
        "source_gb": checkpoint.stat().st_size / 1e9,
        "written_gb": written / 1e9,
        "cp_seconds": copied,
        "times_cp": found["seconds"] / copied,
        **found,
    }


def forward(bundle: Path, side: int, text: int) -> dict[str, float]:
    """One pass of side x side latent and ``text`` text tokens through the flow as stored."""
    import mlx.core as mx

    from mlx_starflow.bundle.load import load_component
    from mlx_starflow.config import FlowConfig
    from mlx_starflow.flow import Flow

    began = time.monotonic()
    flow = load_component(bundle / "flow", lambda data: Flow(FlowConfig.from_dict(data)))
    loaded = time.monotonic()
    x = mx.random.normal((1, side, side, D), key=mx.random.key(1))
    z, logdet = flow(x, mx.random.normal((1, text, TEXT), key=mx.random.key(2)))
    mx.eval(z, logdet)
    return {
        "load_seconds": loaded - began,
        "forward_seconds": time.monotonic() - loaded,
        "finite": bool(mx.isfinite(z).all().item() and mx.isfinite(logdet).all().item()),
        "z_deviation": z.std().item(),
        "mlx_peak_gb": mx.get_peak_memory() / 1e9,
    }


def need(folder: Path) -> dict[str, dict[str, float]]:
    """Gigabytes for one guided, denoised 256x256 picture on a GPU, by precision of the weights."""
    result = {}
    for recipe in (None, 8, "mixed", 4):
        found = planned(folder, recipe, HUGE).need
        parts = {key: value / 1e9 for key, value in dataclasses.asdict(found).items()}
        together, in_turn = found.peak(False) / 1e9, found.peak(True) / 1e9
        name = "bfloat16" if recipe is None else str(recipe)
        result[name] = parts | {"peak": together, "peak with --low-ram": in_turn}
    return result


def planned(folder: Path, recipe: int | str | None, size: int, low_ram: bool = False) -> MemoryPlan:
    """What ``generate`` plans for one picture by the released pipeline, converted to bfloat16 or
    quantized, on a GPU that recommends ``size`` bytes. The bundle is laid out in ``folder`` and
    removed again."""
    import mlx.core as mx

    from mlx_starflow.generation.components import Components
    from mlx_starflow.generation.memory import Budget, plan_memory
    from mlx_starflow.generation.settings import resolve

    lay_out(folder, recipe)
    components = Components(folder, "", "bfloat16", None)
    request = resolve(
        components.config, components.flow_config, components.factor, "a fox in snow", 1
    )
    # The count is of 16-bit activations, as a GPU has them; a CPU computes in float32.
    device, mx.default_device = mx.default_device, lambda: mx.Device(mx.gpu)
    try:
        return plan_memory(components, request, low_ram, Budget(size, HUGE, "The device"))
    finally:
        mx.default_device = device
        shutil.rmtree(folder)


def lay_out(folder: Path, recipe: int | str | None) -> None:
    """Write the released pipeline, converted to bfloat16 or quantized, as sparse files."""
    from mlx_starflow.bundle.load import write_json
    from mlx_starflow.config import BlockConfig, FlowConfig, ModelConfig, TextConfig, VAEConfig
    from mlx_starflow.flow import Flow
    from mlx_starflow.text.t5 import T5Config, T5Encoder
    from mlx_starflow.vae import AutoencoderKL

    c = RELEASED["channels"]
    block = BlockConfig(0, c, c // 64, c // 64, 64, 4 * c, final_norm=True)
    blocks = [dataclasses.replace(block, layers=n) for n in RELEASED["layers"]]
    blocks[-1] = dataclasses.replace(blocks[-1], conditioned=True)
    flow = FlowConfig(
        "starflow", D, 1, 32, tuple(blocks), 0.3, TEXT, 128, sos=True, scale="softplus"
    )
    vae = VAEConfig((128, 256, 512, 512))
    components = {
        "flow": (flow.to_dict(), Flow(flow)),
        "vae": (vae.to_dict(), AutoencoderKL(vae)),
        "text_encoder": (T5, T5Encoder(T5Config.from_dict(T5))),
    }
    for name, (config, module) in components.items():
        sparse(folder / name, config, module, recipe)
    text = TextConfig("t5", 128, TEXT)
    bundle = ModelConfig("starflow", text=text, components={n: n for n in components})
    write_json(folder / "config.json", bundle.to_dict())


def sparse(folder: Path, config: dict, module: Any, recipe: int | str | None) -> None:
    from mlx.utils import tree_flatten

    from mlx_starflow.bundle.load import write_json
    from mlx_starflow.bundle.quantize import (
        bits_of,
        component_kind,
        is_matrix,
        quantization_block,
        takes_type,
    )
    from mlx_starflow.bundle.safetensors import ShardWriter, TensorPlan

    kind, plans, bits = component_kind(config), [], {}
    for name, array in tree_flatten(module.parameters()):
        path, dtype = name.removesuffix(".weight"), "BF16" if takes_type(kind, name) else "F32"
        if recipe is None or not is_matrix(kind, path) or not name.endswith(".weight"):
            plans.append(TensorPlan(name, dtype, array.shape))
            continue
        bits[path] = bits_of(recipe, path, config)
        rows, columns = array.shape
        plans.append(TensorPlan(name, "U32", (rows, columns * bits[path] // 32)))
        plans += [TensorPlan(f"{path}.{k}", "BF16", (rows, columns // 64)) for k in SCALES]
    folder.mkdir(parents=True)
    ShardWriter(folder, plans).abort()  # laid out, never filled
    write_json(
        folder / "config.json",
        config | ({"quantization": quantization_block(bits)} if bits else {}),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "measure", "forward", "need"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--channels", type=int, default=RELEASED["channels"])
    parser.add_argument("--layers", type=int, nargs="+", default=list(RELEASED["layers"]))
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--text", type=int, default=128)
    arguments, rest = parser.parse_known_args()
    if arguments.what == "make":
        count = make(arguments.paths[0], arguments.channels, tuple(arguments.layers))
        print(f"{count / 1e9:.3f} G parameters, {arguments.paths[0].stat().st_size / 1e9:.1f} GB")
    elif arguments.what == "measure":
        result = measure(*arguments.paths[:2], rest)
        print(json.dumps(result, indent=1))
    elif arguments.what == "forward":
        print(json.dumps(forward(arguments.paths[0], arguments.side, arguments.text), indent=1))
    else:
        print(json.dumps(need(arguments.paths[0]), indent=1))


if __name__ == "__main__":
    main()
