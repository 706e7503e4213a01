"""Starting several ranks on this machine, as ``mlx.launch`` does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = ["-m", "mlx_starflow"]


@dataclass(frozen=True)
class Ended:
    """How one rank ended."""

    status: int
    out: str
    err: str


def free_ports(count: int) -> list[int]:
    """Neighbouring free ports: the first for rank 0's own connection, the others for MLX."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
        try:
            for i in range(count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + i))
        except (OSError, OverflowError):
            continue
        return list(range(port, port + count))


class Ranks:
    """Processes of one job, one argument list for all or one for each."""

    def __init__(
        self, size: int, *arguments, each=None, cwd=None, environment=None, places=None
    ) -> None:
        """``places``: for every rank its address and what stands before the command."""
        _, *ports = free_ports(size + 1)
        self.folder = tempfile.TemporaryDirectory()
        hosts = Path(self.folder.name) / "hosts.json"
        places = places or [("127.0.0.1", [])] * size
        addresses = [[f"{place[0]}:{port}"] for place, port in zip(places, ports, strict=True)]
        hosts.write_text(json.dumps(addresses))
        self.processes = []
        for rank in range(size):
            own = arguments if each is None else each[rank]
            values = {
                **os.environ, "MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank),
                "OPENBLAS_NUM_THREADS": "1", "MLX_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
                **((environment or {}).get(rank, {})),
            }  # fmt: skip
            self.processes.append(
                subprocess.Popen(
                    [*places[rank][1], sys.executable, *map(str, own)],
                    cwd=cwd, env=values, text=True,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
            )  # fmt: skip

    def wait(self, seconds: float = 300.0) -> list[Ended]:
        """Wait for all of them."""
        ends = []
        try:
            for process in self.processes:
                out, err = process.communicate(timeout=seconds)
                ends.append(Ended(process.returncode, out, err))
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
            self.folder.cleanup()
        return ends


def on_ranks(size: int, *arguments, **more) -> list[Ended]:
    """Run Python with these arguments on all ranks; they must succeed."""
    ends = Ranks(size, *arguments, **more).wait()
    for end in ends:
        assert end.status == 0, "\n".join(e.err for e in ends)
    return ends
