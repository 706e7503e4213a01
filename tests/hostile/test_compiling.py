"""On a CPU nothing is compiled: MLX keeps such libraries where other users may plant their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from conftest import case_dir

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import mlx.core as mx
mx.set_default_device(mx.cpu)
import mlx_starflow as sf
from mlx_starflow.config import TextConfig
from mlx_starflow.text import load_encoder

with sf.load() as pipe:
    pipe.encode_prompts(["a fox in snow"])
with sf.load(sys.argv[1]) as pipe:
    result = pipe.generate("a fox in snow", seed=7)
    pipe.preview(result.latents)
for directory, config in zip(sys.argv[2::2], sys.argv[3::2]):
    kind, length, channels = config.split()
    load_encoder(directory, TextConfig(kind, int(length), int(channels))).encode(["a fox"])
"""


@pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="compiling is for GPUs")
def test_nothing_is_compiled_on_a_cpu(sentences, tmp_path):
    # One file of weights, as a bundle has them.
    folder = shutil.copytree(case_dir("t5_tiny"), tmp_path / "t5")
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights |= mx.load(str(path))
        path.unlink()
    for path in folder.glob("*.index.json"):
        path.unlink()
    kept = {k: v for k, v in weights.items() if k.startswith(("shared.", "encoder.b", "encoder.f"))}
    mx.save_safetensors(str(folder / "model.safetensors"), kept)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "MLX_STARFLOW_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(sentences), str(folder), "t5 12 32"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []
