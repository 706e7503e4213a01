"""A program that asks a hub on loopback for models, run as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import case_dir
from hub_server import Hub

ROOT = Path(__file__).parents[1]
CHECKPOINT = "starflow_3B_t2i_256x256.pth"
LICENCE = b"research only\n"

# What a program does that asks for a model, as one JSON line of what it was told and got.
CLIENT = """
import json, sys
from mlx_starflow.hub import resumable
resumable.WAITS = (0.05, 0.1)
from mlx_starflow.hub import resolve as hub
from mlx_starflow.hub.download import DownloadPlan, DownloadProgress, RemoteFile, fetch
from mlx_starflow.errors import StarflowError

told = {"plan": [], "bytes": 0, "licence": "", "done": [], "converting": []}

def tell(event):
    if isinstance(event, DownloadPlan):
        told["plan"] += [f.name for f in event.files]
        told["bytes"] += event.bytes
        told["licence"] = event.licence
    elif isinstance(event, DownloadProgress):
        told["done"].append([event.file.name, event.done, event.total])
    else:
        told["converting"].append(event.model)

try:
    what, name, *rest = sys.argv[1:]
    if what == "fetch":
        path = fetch(RemoteFile(name, rest[0], 0), tell)
    elif what == "component":
        path = hub.download_component(name, rest[0], tell)
    elif what == "reference":
        from convert.from_hub import convert_component
        from mlx_starflow.config import TextConfig
        text = TextConfig("t5", 12, 32)
        convert = lambda source, kind, target: convert_component(source, kind, target, text)
        path = hub.resolve_component(None, name, rest[0], convert, tell)
    elif what == "look":
        path = hub.resolve(name)
    else:
        quantize = int(rest[0]) if rest else None
        def convert(sources, output):
            from convert.from_hub import convert_sources
            convert_sources(sources, output)
        path = hub.resolve(name, convert, quantize, tell)
    print(json.dumps(told | {"path": str(path)}))
except StarflowError as error:
    print(json.dumps(told | {"error": str(error), "kind": type(error).__name__}))
"""


def files_of(case: str, *patterns: str) -> dict[str, bytes]:
    found = [p for pattern in patterns for p in case_dir(case).glob(pattern)]
    return {p.name: p.read_bytes() for p in sorted(found)}


def repositories() -> dict[str, dict[str, bytes]]:
    """The small fixtures under the published names, with other files beside them."""
    checkpoint = (case_dir("t2i_tiny") / "checkpoint.pth").read_bytes()
    return {
        "apple/starflow": {CHECKPOINT: checkpoint, "LICENSE": LICENCE, "other.pth": b"0" * 99},
        "google/flan-t5-xl": files_of("t5_tiny", "*.safetensors", "*.json") | {"tf.h5": b"0"},
        "stabilityai/sd-vae-ft-ema": files_of("vae_tiny", "*.safetensors", "config.json"),
    }


def ask_hub(hub: Hub, folder: Path, *arguments: str, **environment: str) -> dict:
    """Run the client against the hub, with caches of its own in ``folder``, at most a minute."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, *arguments],
        env=variables(hub, folder) | environment,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def variables(hub: Hub, folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "MLX_STAR"))}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "MLX_STARFLOW_CACHE": str(folder / "converted"),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "*",
    }
