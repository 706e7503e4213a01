"""A description of this machine, to be stored with measurements."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime

import mlx.core as mx

from ..version import __version__
from .blas import blas_in_use
from .precision import tf32_in_use


@dataclass(frozen=True)
class Machine:
    """Hardware, libraries and time of a measurement."""

    date: str  # UTC, ISO 8601
    system: str
    architecture: str
    cpus: int  # number of CPUs that this process may use
    device: str  # MLX's default device, "cpu" or "gpu"
    device_name: str  # of the chip; "" if MLX does not know it
    blas: str  # library for float32 products on the CPU
    tf32: str  # whether float32 products on a GPU may be rounded to TensorFloat-32
    python: str
    mlx: str
    mlx_starflow: str
    load_average: float | None  # of the last minute; None: unknown


def this_machine() -> Machine:
    """The machine as it is now."""
    device = mx.default_device()
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        system=platform.system(),
        architecture=platform.machine(),
        cpus=_cpus(),
        device=device.type.name,
        device_name=chip_name(),
        blas=blas_in_use(),
        tf32=tf32_in_use(),
        python=platform.python_version(),
        mlx=mlx_version(),
        mlx_starflow=__version__,
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def mlx_version() -> str:
    """The version of MLX."""
    return str(getattr(mx, "__version__", "unknown"))


def chip_name() -> str:
    """MLX's name for the chip of the default device, such as "Apple M4 Max"; "" if unknown."""
    return str(mx.device_info(mx.default_device()).get("device_name", ""))


def device_name() -> str:
    """Kind and name of the default device, such as "gpu (Apple M4 Max)"."""
    kind = "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"
    return f"{kind} ({chip_name() or 'unknown'})"


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
