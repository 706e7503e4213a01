"""A step-wise export of the released model's size with random weights at 4 bits: what it costs, and
whether its steps are Python's. Needs about 6 GB of disk. From the repository's root:

    PYTHONPATH=. python tests/full_size_export.py BIG/model BIG/export
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from pathlib import Path

import full_size
import numpy as np

import mlx_starflow as sf

# isort: split
import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_starflow.bundle.load import write_component, write_json
from mlx_starflow.bundle.quantize import is_matrix, quantization_block
from mlx_starflow.bundle.safetensors import ShardWriter, TensorPlan
from mlx_starflow.config import BlockConfig, FlowConfig, ModelConfig, TextConfig, VAEConfig
from mlx_starflow.export import export
from mlx_starflow.exported import stepwise
from mlx_starflow.flow import Flow
from mlx_starflow.generation.components import Components
from mlx_starflow.vae import AutoencoderKL

BITS, GROUP, STD = 4, 64, 0.02


def make(folder: Path) -> None:
    """A bundle of the released flow's and autoencoder's size, one tensor at a time."""
    c = full_size.RELEASED["channels"]
    block = BlockConfig(0, c, c // 64, c // 64, 64, 4 * c, final_norm=True)
    blocks = [
        dataclasses.replace(block, layers=n, flip=i % 2 == 0)
        for i, n in enumerate(full_size.RELEASED["layers"])
    ]
    blocks[-1] = dataclasses.replace(blocks[-1], conditioned=True)
    flow = FlowConfig(
        "starflow", full_size.D, 1, 32, tuple(blocks), 0.3, full_size.TEXT, 128, sos=True,
        scale="softplus", soft_clip=4.0,
    )  # fmt: skip
    write_random(folder / "flow", flow)
    vae = VAEConfig((128, 256, 512, 512))
    weights = dict(tree_flatten(AutoencoderKL(vae).parameters()))
    write_component(folder / "vae", vae.to_dict(), weights)
    text = TextConfig("t5", 128, full_size.TEXT)
    parts = {"flow": "flow", "vae": "vae"}
    model = ModelConfig("starflow", name="full-size", text=text, components=parts)
    write_json(folder / "config.json", model.to_dict())


def write_random(folder: Path, config: FlowConfig) -> None:
    random, arrays, bits = np.random.default_rng(0), [], {}
    for name, array in tree_flatten(Flow(config).parameters()):
        path, (rows, *more) = name.removesuffix(".weight"), array.shape
        if not (is_matrix("flow", path) and name.endswith(".weight")):
            arrays.append((name, TensorPlan(name, "F32", array.shape), None))
            continue
        bits[path] = BITS
        (columns,) = more
        packed = (rows, columns * BITS // 32)
        arrays.append((name, TensorPlan(name, "U32", packed), "packed"))
        for kind in ("scales", "biases"):
            plan = TensorPlan(f"{path}.{kind}", "F16", (rows, columns // GROUP))
            arrays.append((name, plan, kind))
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, [plan for _, plan, _ in arrays])
    step = STD / np.sqrt((16**2 - 1) / 12)  # of numbers that are uniform on 16 values
    for name, plan, kind in arrays:
        if kind == "packed":
            made = random.integers(0, 1 << 32, plan.shape, np.uint32)
        elif kind is not None:
            made = np.full(plan.shape, step if kind == "scales" else -7.5 * step, np.float16)
        elif len(plan.shape) == 1 and name.endswith("norm.weight") and "final" not in name:
            made = np.ones(plan.shape, np.float32)
        else:
            made = (STD * random.standard_normal(plan.shape)).astype(np.float32)
        writer.write(plan.name, memoryview(made).cast("B"))
    writer.close()
    write_json(
        folder / "config.json", config.to_dict() | {"quantization": quantization_block(bits)}
    )


def measure(model: Path, output: Path) -> dict[str, object]:
    """Peak memory of loading and exporting, above the weights; and the difference of a step."""
    shutil.rmtree(output, ignore_errors=True)
    components = Components(model, "full-size")
    flow, vae = components.flow, components.vae
    weights = mx.get_active_memory()
    began = time.monotonic()
    report = export(components, output, "steps")
    seconds, peak = time.monotonic() - began, mx.get_peak_memory()
    resident = full_size.memory(os.getpid())["VmHWM"] / 1e6
    del flow, vae
    components.drop_all()
    began = time.monotonic()
    exported = sf.exported.load(output)
    checked = time.monotonic() - began
    test = mx.load(str(output / exported.data["test"]["file"]))
    deep = exported.data["sampling"]["blocks"][0]
    context = {name: test[name] for name in ("caption", "null")}
    (u,) = exported.calls("layout.tokens", {"noise": test["noise"]})
    count = test["tokens"].shape[1]
    mx.reset_peak_memory()
    began = time.monotonic()
    steps = stepwise.block_tokens(exported.calls, deep, stepwise.turned(u, deep), context)
    found = mx.concatenate([next(steps) for _ in range(count)], axis=1)
    return {
        "export_gb": report.bytes / 1e9,
        "weights_gb": weights / 1e9,
        "mlx_peak_above_weights_gb": (peak - weights) / 1e9,
        "process_peak_above_weights_gb": resident - weights / 1e9,
        "export_seconds": seconds,
        "check_seconds": checked,
        f"seconds_for_text_and_{count}_tokens": time.monotonic() - began,
        "run_peak_gb": mx.get_peak_memory() / 1e9,
        "largest_token": mx.abs(test["tokens"]).max().item(),
        "largest_difference_of_a_token": mx.abs(found - test["tokens"]).max().item(),
    }


if __name__ == "__main__":
    model, output = (Path(word) for word in sys.argv[1:3])
    if not model.exists():
        make(model)
    print(json.dumps(measure(model, output), indent=1))
