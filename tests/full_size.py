"""The released text-to-image checkpoint in full size, made of cheap numbers, and what converting
it costs. Needs about 45 GB of disk and no PyTorch. From the repository's root:

    PYTHONPATH=. python tests/full_size.py make     BIG/starflow_3B_t2i_256x256.pth
    PYTHONPATH=. python tests/full_size.py measure  BIG/starflow_3B_t2i_256x256.pth BIG/out \\
        --dtype bfloat16
    PYTHONPATH=. python tests/full_size.py forward  BIG/out

``measure`` converts in a process of its own and watches it: peak resident memory in total, the part
that the process holds (RssAnon), and the part that is pages of mapped files, which the kernel takes
back when it needs them (RssFile). It also copies the file with cp, for comparison.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch_files

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
            layer = f"{block}attn_blocks.{j}."
            for name in ("attention.norm", "mlp.norm"):
                result |= {f"{layer}{name}.weight": (c,), f"{layer}{name}.bias": (c,)}
            result |= linear(layer + "attention.qkv", 3 * c, c)
            result |= linear(layer + "attention.proj", c, c)
            result |= linear(layer + "mlp.main.0", 4 * c, c)
            result |= linear(layer + "mlp.main.2", c, 4 * c)
        result[block + "final_norm.weight"] = (c,)
    return result | {"feat_rope.freqs_cos": (rows, 64), "feat_rope.freqs_sin": (rows, 64)}


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


def forward(bundle: Path, side: int) -> dict[str, float]:
    """One pass of a latent of side x side tokens through the flow as stored."""
    import mlx.core as mx

    from mlx_starflow.checkpoint import load_component
    from mlx_starflow.config import FlowConfig
    from mlx_starflow.flow import Flow

    began = time.monotonic()
    flow = load_component(bundle / "flow", lambda data: Flow(FlowConfig.from_dict(data)))
    loaded = time.monotonic()
    x = mx.random.normal((1, side, side, D), key=mx.random.key(1))
    z, logdet = flow(x, mx.random.normal((1, 128, TEXT), key=mx.random.key(2)))
    mx.eval(z, logdet)
    return {
        "load_seconds": loaded - began,
        "forward_seconds": time.monotonic() - loaded,
        "finite": bool(mx.isfinite(z).all().item() and mx.isfinite(logdet).all().item()),
        "z_deviation": z.std().item(),
        "mlx_peak_gb": mx.get_peak_memory() / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "measure", "forward"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--channels", type=int, default=RELEASED["channels"])
    parser.add_argument("--layers", type=int, nargs="+", default=list(RELEASED["layers"]))
    parser.add_argument("--side", type=int, default=8)
    arguments, rest = parser.parse_known_args()
    if arguments.what == "make":
        count = make(arguments.paths[0], arguments.channels, tuple(arguments.layers))
        print(f"{count / 1e9:.3f} G parameters, {arguments.paths[0].stat().st_size / 1e9:.1f} GB")
    elif arguments.what == "measure":
        result = measure(*arguments.paths[:2], rest)
        print(json.dumps(result, indent=1))
    else:
        print(json.dumps(forward(arguments.paths[0], arguments.side), indent=1))


if __name__ == "__main__":
    main()
