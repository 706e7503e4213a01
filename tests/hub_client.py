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
# question in its arguments, or for every question on its standard input. Such a question begins
# with the variables that say where the hub and the caches are. huggingface_hub reads them once.
CLIENT = """
import json, os, sys
from pathlib import Path
from huggingface_hub import constants
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

if sys.argv[1:]:
    print(json.dumps(answer(*sys.argv[1:])), flush=True)
else:
    for places, *question in map(json.loads, sys.stdin):
        os.environ.update(places)
        home, constants.ENDPOINT = Path(places["HF_HOME"]), places["HF_ENDPOINT"]
        path = "/{repo_id}/resolve/{revision}/{filename}"
        constants.HUGGINGFACE_CO_URL_TEMPLATE = constants.ENDPOINT + path
        constants.HF_HOME, constants.HF_HUB_CACHE = str(home), str(home / "hub")
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


class Programs:
    """Programs that wait for questions, one for every environment that was asked for: they take
    long to start."""

    def __init__(self, folder: Path) -> None:
        self.errors = folder / "client.txt"
        self.running: dict[tuple, subprocess.Popen] = {}

    def ask(self, question: list, places: dict[str, str], environment: dict[str, str]) -> dict:
        """The answer of the program, within a minute."""
        key = tuple(sorted(environment.items()))
        if key not in self.running:
            self.running[key] = self._start(base() | places | environment)
        program = self.running[key]
        late = threading.Timer(60, program.kill)
        late.start()
        try:
            program.stdin.write(json.dumps([places, *question]) + "\n")
            program.stdin.flush()
            line = program.stdout.readline()
        finally:
            late.cancel()
        if not line:
            self.close()
        assert line, self.errors.read_text()
        return json.loads(line)

    def _start(self, environment: dict[str, str]) -> subprocess.Popen:
        with self.errors.open("a") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", CLIENT],
                env=environment,
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


class Clients:
    """Asks a hub, with caches in ``folder``. After ``close`` new programs answer."""

    def __init__(self, programs: Programs, hub: Hub, folder: Path) -> None:
        self.programs, self.hub, self.folder = programs, hub, folder

    def __call__(self, *arguments: str, **environment: str) -> dict:
        where = places(self.hub, self.folder)
        where |= {name: environment.pop(name) for name in where if name in environment}
        return self.programs.ask(list(arguments), where, environment)

    def close(self) -> None:
        self.programs.close()


def places(hub: Hub, folder: Path) -> dict[str, str]:
    """The variables that say where the hub and the caches are."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "MLX_STARFLOW_CACHE": str(folder / "converted"),
    }


def base() -> dict[str, str]:
    """The variables of every program."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "MLX_STAR"))}
    return kept | {"PYTHONPATH": str(ROOT), "NO_PROXY": "*"}


def variables(hub: Hub, folder: Path) -> dict[str, str]:
    """All variables of a program of one test."""
    return base() | places(hub, folder)
