"""Which rank this process is, and where rank 0 listens, from what ``mlx.launch`` sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files.json import read_json

MOST = 1024  # ranks
MAX_HOSTFILE = 1 << 20  # bytes


@dataclass(frozen=True)
class Place:
    """This process among its peers."""

    rank: int
    size: int  # number of ranks, at least 2
    host: str  # address of rank 0
    port: int  # where rank 0 listens; MLX's own ports follow it


def place_of(environment: Mapping[str, str]) -> Place | None:
    """The place that ``mlx.launch`` gave this process in its environment; None for a process by
    itself. Understands the backends ring and jaccl. Errors: UsageError for an environment that
    contradicts itself, or a backend that names no address."""
    if "MLX_RANK" not in environment:
        if any(name in environment for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")):
            raise UsageError(
                "This process was started by MPI, which tells no address of rank 0. Use "
                "mlx.launch --backend ring (or jaccl)."
            )
        return None
    if "MLX_JACCL_COORDINATOR" in environment:
        where = environment["MLX_JACCL_COORDINATOR"]
        size = len(_listed(environment.get("MLX_IBV_DEVICES", "")))
    elif "NCCL_HOST_IP" in environment:
        where = f"{environment['NCCL_HOST_IP']}:{environment.get('NCCL_PORT', '')}"
        size = _number(environment.get("MLX_WORLD_SIZE", ""), "MLX_WORLD_SIZE", MOST)
    else:
        hosts = _listed(environment.get("MLX_HOSTFILE", ""))
        where, size = (hosts[0][0] if hosts and hosts[0] else ""), len(hosts)
    if size <= 1:
        return None
    rank = _number(environment["MLX_RANK"], "MLX_RANK", size - 1)
    host, _, port = str(where).rpartition(":")
    if not host:
        raise UsageError("MLX_RANK is set, but no address of rank 0. Start with mlx.launch.")
    return Place(rank, size, host, _number(port, "the port of rank 0", 65535) - 1)


def _listed(file: str) -> list[Any]:
    """The JSON list in a file that mlx.launch wrote; [] for an empty or no file."""
    if not file:
        return []
    path = Path(file)
    try:
        if not path.read_bytes().strip():
            return []
        found = read_json(path, MAX_HOSTFILE, UsageError)
    except OSError as error:
        raise UsageError(f"{file}, which mlx.launch wrote, cannot be read: {error}.") from None
    if not isinstance(found, list) or len(found) > MOST:
        raise UsageError(f"{file}: expected a list of at most {MOST} hosts.")
    return found


def _number(text: str, name: str, most: int) -> int:
    if not text.isdecimal() or int(text) > most:
        raise UsageError(f"{name} is {json.dumps(text)}; expected a number up to {most}.")
    return int(text)
