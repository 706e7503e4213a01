"""Programs that ask a hub on loopback for models, as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from conftest import case_dir
from hub_server import Hub

ROOT = Path(__file__).parents[1]
CHECKPOINT = "starflow_3B_t2i_256x256.pth"
LICENCE = b"research only\n"

# What a program does that asks for a model: one JSON line of what it was told and got, for the
# question in its arguments, or for every question on its standard input.
CLIENT = """
import json, sys
from mlx_starflow.hub import resumable
resumable.WAITS = (0.05, 0.1)
from mlx_starflow.hub import resolve as hub
from mlx_starflow.hub.download import DownloadPlan, DownloadProgress, RemoteFile, fetch
from mlx_starflow.errors import StarflowError

def answer(what, name, *rest):
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
        return told | {"path": str(path)}
    except StarflowError as error:
        return told | {"error": str(error), "kind": type(error).__name__}

for question in [sys.argv[1:]] if sys.argv[1:] else map(json.loads, sys.stdin):
    print(json.dumps(answer(*question)), flush=True)
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


class Clients:
    """Asks a hub in programs with caches of their own in ``folder``. Questions with the same
    environment go to the same program; after ``close`` a new one answers."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.running: dict[tuple, subprocess.Popen] = {}

    def __call__(self, *arguments: str, **environment: str) -> dict:
        """The answer of the program, within a minute."""
        key = tuple(sorted(environment.items()))
        if key not in self.running:
            self.running[key] = self._start(environment)
        program = self.running[key]
        late = threading.Timer(60, program.kill)
        late.start()
        try:
            program.stdin.write(json.dumps(arguments) + "\n")
            program.stdin.flush()
            line = program.stdout.readline()
        finally:
            late.cancel()
        assert line, (self.folder / "client.txt").read_text()
        return json.loads(line)

    def _start(self, environment: dict[str, str]) -> subprocess.Popen:
        with (self.folder / "client.txt").open("a") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", CLIENT],
                env=variables(self.hub, self.folder) | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )

    def close(self) -> None:
        for program in self.running.values():
            with program:  # closes its pipes, which ends it, and waits
                pass
        self.running.clear()


def variables(hub: Hub, folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "MLX_STAR"))}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "MLX_STARFLOW_CACHE": str(folder / "converted"),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "*",
    }
