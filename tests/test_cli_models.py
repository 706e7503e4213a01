"""Models by name on the command line, against a hub on loopback; ``info`` of what there is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from command import run  # noqa: F401
from conftest import case_dir
from hub_client import ROOT, repositories, variables
from hub_server import Hub

from mlx_starflow.device.blas import blas_in_use


@pytest.fixture
def shell(tmp_path):
    """Run the command as a process, with caches of its own, against a hub."""
    with Hub(repositories()) as hub:

        def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
            return subprocess.run(
                [sys.executable, str(ROOT / "cli.py"), *arguments],
                env=variables(hub, tmp_path) | environment,
                capture_output=True,
                text=True,
                timeout=120,
                cwd=tmp_path,
            )

        call.hub = hub
        yield call


def test_a_published_model_from_its_name_to_a_picture(shell, run, tmp_path, monkeypatch):  # noqa: F811
    """Processes where a model is fetched or drawn with; what is told of models needs none."""
    monkeypatch.setenv("MLX_STARFLOW_CACHE", str(tmp_path / "converted"))
    known = run("models", "list").lines
    assert not [line for line in known if "[" in line and not line.startswith(("default", "clips"))]
    drawn = shell("generate", "a fox", "--model", "starflow", "--seed", "1", "--no-denoise",
                  "--sampler", "sequential", "--guidance", "0")  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout == "image.png\n"
    said = drawn.stderr.splitlines()
    assert "downloading 0.01 GB" in said[0] and "for research only" in said[0]
    assert "converting" in said[1]

    listed = json.loads(run("models", "list", "--json").out)
    assert [row["here"] for row in listed if row["name"] == "apple/starflow"] == [
        ["bfloat16, 0.0 GB"]
    ]
    shown = run("models", "show", "apple/starflow").out
    assert "licence: Apple" in shown and "@bfloat16" in shown

    shell.hub.requests.clear()
    again = shell("generate", "-C", "image.png", "-o", "again.png")
    assert (again.returncode, again.stderr) == (0, "") and shell.hub.requests == []

    removed = run("models", "remove", "starflow")
    assert "removed" in removed.out and not list((tmp_path / "converted").glob("apple*"))
    assert run("models", "remove", "starflow").status == 2


def test_the_size_and_the_licence_of_the_model_of_clips(run):  # noqa: F811
    shown = run("models", "show", "starflow-v")
    assert shown.status == 0 and "checkpoint_gigabytes: 27.6\n" in shown.out
    assert "for research only" in shown.out and "clips of 81 frames" in shown.out


def test_download_alone_in_another_precision(shell, run, tmp_path, monkeypatch, no_hub):  # noqa: F811
    made = shell("models", "download", "apple/starflow", "-q", "8")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip().endswith("@8-bit")
    monkeypatch.setenv("MLX_STARFLOW_CACHE", str(tmp_path / "converted"))
    facts = json.loads(run("info", "apple/starflow", "--json").out)
    assert facts["directory"] == made.stdout.strip()


def test_a_hub_that_is_down_is_one_sentence(shell):
    failed = shell("generate", "a fox", "-m", "apple/starflow", HF_ENDPOINT="http://127.0.0.1:9")
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr


def test_info_of_this_machine(run):  # noqa: F811
    facts = json.loads(run("info", "--json").out)
    assert facts["memory_gb"] > 0 and facts["versions"]["mlx"] and facts["blas"] == blas_in_use()
    text = run("info").out
    assert f"blas: {facts['blas']}" in text and "device: " in text


def test_info_of_a_picture_and_of_a_model(run, colours):  # noqa: F811
    run("generate", "red", "-m", colours, "--seed", 8)
    assert "prompt: red\nseed: 8\n" in run("info", "image.png").out
    assert json.loads(run("info", "image.png", "--json").out)["seed"] == 8
    facts = run("info", str(colours)).out
    assert "16:9: 16x8" in facts and "noise_std: 0.2" in facts


def test_convert_and_draw(run):  # noqa: F811
    flow = case_dir("t2i_tiny")
    made = run("convert", flow / "checkpoint.pth", "--config", flow / "config.yaml", "--vae",
               case_dir("vae_tiny"), "--text-encoder", case_dir("t5_tiny"), "-o", "model",
               "-q", "8")  # fmt: skip
    assert made.status == 0, made.err
    drawn = run("generate", "a fox in snow", "-m", "model", "--seed", 1, "--json")
    assert json.loads(drawn.out)["images"][0]["precision"] == "8-bit"
    refused = run("convert", flow / "checkpoint.pth", "--config", flow / "config.yaml", "-o",
                  "model")  # fmt: skip
    assert refused.status != 0 and "--overwrite" in refused.err
