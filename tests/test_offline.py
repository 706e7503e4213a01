"""A component on the hub is downloaded when it is needed, not before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import run  # noqa: F401
from hub_client import ROOT

REFERENCES = {
    "vae": "hub:stabilityai/sd-vae-ft-ema",
    "text_encoder": "hub:google/flan-t5-xl",
}


@pytest.fixture
def referring(converted, tmp_path) -> Path:
    """The reference model whose VAE and text encoder are repositories of a hub."""
    shutil.copytree(converted, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    for component in REFERENCES:
        shutil.rmtree(tmp_path / "model" / component)
    config["components"] |= REFERENCES
    path.write_text(json.dumps(config))
    return tmp_path / "model"


@pytest.fixture
def offline(tmp_path):
    """Run Python with the address of a hub that does not answer."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MLX_STAR"))}
    environment = kept | {
        "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*",
        "MLX_STARFLOW_CACHE": str(tmp_path / "converted"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip

    def call(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True,
            timeout=120, cwd=tmp_path,
        )  # fmt: skip

    return call


def test_a_flow_alone_asks_no_hub(offline, referring):
    program = (
        "import mlx.core as mx, mlx_starflow as sf\n"
        f"pipe = sf.load({str(referring)!r})\n"
        "x = mx.zeros((1, 8, 8, pipe.flow.config.in_channels))\n"
        "text = mx.zeros((1, pipe.flow.config.text_length, pipe.flow.config.text_channels))\n"
        "print(sf.log_prob(pipe.flow, x, text).item())\n"
        "pipe.close()\n"
    )
    done = offline("-c", program)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0


def test_info_asks_no_hub_and_says_where_companions_lead(offline, run, referring):  # noqa: F811
    done = offline(str(ROOT / "cli.py"), "info", str(referring), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["sizes"] == {"1:1": "64x64"}
    assert facts["components"]["vae"] == REFERENCES["vae"]
    people = run("info", referring)
    assert "vae: stabilityai/sd-vae-ft-ema on the hub, downloaded at first use" in people.out


def test_drawing_names_the_companion_that_is_missing(offline, referring):
    done = offline(str(ROOT / "cli.py"), "generate", "a fox", "-m", str(referring), "--quiet")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "google/flan-t5-xl" in done.stderr or "stabilityai" in done.stderr
