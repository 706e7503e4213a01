"""Adapters in the weights: the same pictures, quantized too, with the loss measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from families import ROUNDING
from mlx.utils import tree_flatten
from teaching import adapter

import mlx_starflow as sf
from mlx_starflow.adapters.changes import NAMES
from mlx_starflow.bundle.load import (
    read_bundle_config,
    read_component_config,
    write_component,
    write_json,
)
from mlx_starflow.bundle.quantize import GROUP_SIZE
from mlx_starflow.bundle.staging import work_directory
from mlx_starflow.errors import ConfigError
from mlx_starflow.generation.components import Components

ROOT = Path(__file__).parents[1]


def packed(bundle, place, bits):
    """A copy of a bundle stored quantized."""
    flow = Components(bundle, "x", quantize=bits).flow
    config = read_component_config(bundle / "flow")
    config["quantization"] = {"group_size": GROUP_SIZE, "bits": bits}
    write_component(place / "flow", config, dict(tree_flatten(flow.parameters())))
    write_json(place / "config.json", read_bundle_config(bundle).to_dict())
    return place


@pytest.mark.parametrize("kind", ["lora", "dora", "parts"])
def test_the_fused_model_is_the_adapted_one(run, colours, tmp_path, kind):  # noqa: F811
    keys = ("attention.k", "attention.v", "proj_in", "proj_out")
    changes = {"lora": {}, "dora": {"fine_tune_type": "dora"}, "parts": {"keys": keys}}
    style = adapter(colours, tmp_path / "style", **changes[kind])
    made = run("fuse", "-m", colours, "--lora", style, 0.8, "--save-path", "mine", "--json")
    assert made.status == 0, made.err
    report = json.loads(made.out)
    assert abs(report["loss"]) < 1e-6 * ROUNDING < report["change"]
    with sf.load(colours, adapters=[(style, 0.8)]) as beside, sf.load("mine") as fused:
        x = mx.random.normal((2, 12, 12, 3), key=mx.random.key(1))
        context = beside.encode_prompts(["red", "blue"])
        wanted, found = beside.flow(x, context)[0], fused.flow(x, context)[0]
        assert mx.abs(wanted - found).max().item() < 1e-4 * ROUNDING
        assert not any(n.endswith(NAMES) for n, _ in tree_flatten(fused.flow.parameters()))
        with pytest.raises(ConfigError, match="was made for"):
            fused.set_adapters([style])


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_into_quantized_weights(run, wide, tmp_path, bits):  # noqa: F811
    """The loss is the divergence that rounding makes; more bits lose less, --dequantize hardly."""
    base = packed(wide, tmp_path / "packed", bits)
    style = adapter(base, tmp_path / "style", size=0.1)
    made = run("fuse", "-m", base, "--adapter-path", style, "--save-path", "q", "--json")
    whole = run("fuse", "-m", base, "--adapter-path", style, "--save-path", "w", "--dequantize",
                "--json")  # fmt: skip
    assert made.status == 0 and whole.status == 0, made.err + whole.err
    lost, kept = json.loads(made.out)["loss"], json.loads(whole.out)["loss"]
    assert json.loads((tmp_path / "q/flow/config.json").read_text())["quantization"]["bits"] == bits
    assert "quantization" not in json.loads((tmp_path / "w/flow/config.json").read_text())
    assert abs(kept) < abs(lost)
    with sf.load("q") as pipe, sf.load(base, adapters=[style]) as beside:
        # What is said is what anyone finds on the same samples.
        rows = beside.encode_prompts([""] * 16)
        noise = mx.stack([mx.random.normal((12, 12, 3), key=mx.random.key(i)) for i in range(16)])
        x = sf.invert(beside.flow, noise, rows, sampler="sequential")
        found = np.array(sf.log_prob(beside.flow, x, rows) - sf.log_prob(pipe.flow, x, rows))
    assert found.mean() / x[0].size == pytest.approx(lost, abs=2e-4 * ROUNDING)


def test_an_adapter_that_rounding_swallows_is_warned_of(run, wide, tmp_path):  # noqa: F811
    base = packed(wide, tmp_path / "packed", 4)
    style = adapter(base, tmp_path / "style", size=0.02)
    made = run("fuse", "-m", base, "--adapter-path", style, "--save-path", "q")
    assert made.status == 0 and "Warning: Fusing lost" in made.err, made.err


def test_what_is_refused(run, colours, tmp_path):  # noqa: F811
    assert run("fuse", "-m", colours, "--save-path", "mine").status == 2
    style = adapter(colours, tmp_path / "style")
    (tmp_path / "mine").mkdir()
    refused = run("fuse", "-m", colours, "--adapter-path", style, "--save-path", "mine")
    assert refused.status == 2 and "already exists" in refused.err


KILLED = """
import os, signal, sys
from mlx_starflow.cli import app
from mlx_starflow.generation.components import Components
Components.set_adapters = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # after the weights
app.run(sys.argv[1:])
"""


def test_what_a_killed_run_left_is_cleared_up(run, colours, tmp_path):  # noqa: F811
    """By the next one for the same model; one that is still at work is left alone."""
    line = ("fuse", "-m", colours, "--adapter-path", adapter(colours, tmp_path / "a"),
            "--samples", 2, "--save-path", tmp_path / "mine")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, line)], cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.glob(".mine.*")
    assert (left / "flow" / "model.safetensors").exists()
    with work_directory(tmp_path / "mine") as other:
        made = run(*line)
        assert made.status == 0, made.err
        assert other.is_dir() and not left.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "mine"]
