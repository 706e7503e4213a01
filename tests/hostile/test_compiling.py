"""On a CPU nothing is compiled: MLX keeps such libraries where other users may plant their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from conftest import case_dir
from teaching import QUICK, pictures

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
import mlx.core as mx
mx.set_default_device(mx.cpu)
import mlx_starflow as sf
from mlx_starflow.cli.app import run
from mlx_starflow.config import TextConfig
from mlx_starflow.text import load_encoder

with sf.load() as pipe:
    pipe.encode_prompts(["a fox in snow"])
with sf.load(sys.argv[1]) as pipe:
    result = pipe.generate("a fox in snow", seed=7)
    pipe.preview(result.latents)
load_encoder(sys.argv[2], TextConfig("t5", 12, 32)).encode(["a fox"])
for line in json.loads(sys.argv[3]):
    assert run(line) == 0, line
"""


COMPILED = """
import mlx.core as mx
mx.set_default_device(mx.cpu)
mx.eval(mx.compile(lambda x: mx.exp(x) * 2 + x)(mx.arange(3.0)))
"""
ENCODER = """
import sys
import mlx.core as mx
mx.set_default_device(mx.cpu)
from mlx_starflow.config import TextConfig
from mlx_starflow.text import load_encoder

encoder = load_encoder(sys.argv[1], TextConfig("gemma", 16, 128, masked=True))
assert "mlx_lm.models.gemma3_text" in sys.modules or "mlx_lm.models.gemma2" in sys.modules
mx.eval(encoder.encode(["a fox"]).features)
"""
on_a_cpu = pytest.mark.skipif(
    mx.default_device() != mx.Device(mx.cpu), reason="compiling is for GPUs"
)


def check(tmp_path: Path, program: str, *arguments: object) -> None:
    """Run a program and check that it leaves no compiled library behind."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "MLX_STARFLOW_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []


@on_a_cpu
@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX needs a compiler to compile")
def test_the_check_notices_a_compiled_function(tmp_path):
    with pytest.raises(AssertionError, match="mlx"):
        check(tmp_path, COMPILED)


@on_a_cpu
def test_a_gemma_of_mlx_lm_compiles_nothing(tmp_path):
    source = ROOT / "mlx_starflow" / "assets" / "default" / "text_encoder"
    folder = shutil.copytree(source, tmp_path / "gemma")
    config = json.loads((folder / "config.json").read_text())
    config["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    (folder / "config.json").write_text(json.dumps(config))
    check(tmp_path, ENCODER, folder)


@on_a_cpu
def test_nothing_is_compiled_on_a_cpu(sentences, colours, filmed, tmp_path):
    """Drawing, previews, text encoders, a training and a clip."""
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
    adapter, clip = tmp_path / "adapters", tmp_path / "a.gif"
    training = ["train", "--data", pictures(tmp_path / "data"), "-m", colours, *QUICK,
                "--adapter-path", adapter]  # fmt: skip
    filming = ["video", "red", "-m", filmed, "--frames", 5, "--seed", 1, "-o", clip]
    lines = json.dumps([[str(word) for word in line] for line in (training, filming)])
    check(tmp_path, PROGRAM, sentences, folder, lines)
    assert (adapter / "adapters.safetensors").is_file() and clip.is_file()
