"""The windows and tolerance of the sampler, measured once per device and model and cached on
disk."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..device.precision import tf32_allowed
from ..errors import ConfigError
from ..files.fields import is_number, is_whole
from ..files.json import read_json
from ..flow import Context, Flow
from ..flow.grid import Grid
from . import SampleOptions
from .calibrate import (
    COMMITTED_PER_SWEEP,
    SHALLOW_COMMITTED,
    SHALLOW_SWEEPS,
    calibrate,
    reachable_tolerance,
)

FILE = "windows.json"
_one_at_a_time = threading.Lock()  # threads that need the same measurement wait for the first


@dataclass(frozen=True)
class Measured:
    """Measurements on this device for a model, grid and batch size."""

    windows: tuple[int, ...]  # of every block, for ``SampleOptions.windows``
    floor: float  # largest rounding floor of any block, see sampling/tolerance.py
    tolerance: float  # the smallest that can be reached, for ``SampleOptions.tolerance``


def windows_for(
    flow: Flow,
    grid: Grid,
    batch: int,
    options: SampleOptions,
    cache: Path | None,
    context: Context = None,
) -> Measured:
    """Windows and tolerance for the default sampler, from the file windows.json in ``cache``. If
    this device, precision, model, grid and batch size are not in it, they are measured and added.
    An unreadable or unwritable cache is ignored. ``context``: as for ``invert``, used to measure
    the floor."""
    key = _key(flow, grid, batch, options)
    with _one_at_a_time:
        known = _read(cache)
        if found := _measured(known.get(key), len(flow.blocks), grid.tokens):
            return found
        windows = calibrate(flow, grid, batch, options)
        found = Measured(windows, *reachable_tolerance(flow, grid, batch, options, context))
        if cache is not None:
            _write(cache, known | {key: asdict(found)})
    return found


def _measured(entry: Any, blocks: int, tokens: int) -> Measured | None:
    """An entry of the file; None if it is invalid."""
    if not isinstance(entry, dict) or set(entry) != {"windows", "floor", "tolerance"}:
        return None
    windows, floor, tolerance = entry["windows"], entry["floor"], entry["tolerance"]
    if not is_number(floor, 0, 1) or not is_number(tolerance, 0, 1) or tolerance == 0:
        return None
    if not isinstance(windows, list) or len(windows) != blocks:
        return None
    if not all(is_whole(window, 1, tokens) for window in windows):
        return None
    return Measured(tuple(map(int, windows)), float(floor), float(tolerance))


def _key(flow: Flow, grid: Grid, batch: int, options: SampleOptions) -> str:
    device = mx.default_device()
    name = mx.device_info(device).get("device_name", str(device))
    layer = flow.blocks[-1].layers[0] if flow.config.blocks[-1].layers else None
    bits = getattr(layer.attention.qkv, "bits", "") if layer else ""
    parts = [name, mx.__version__, layer.dtype if layer else "", bits, flow.config, grid, batch]  # type: ignore[attr-defined]
    parts += [
        options.guidance > 0,
        options.window,
        options.kv_bits,
        tf32_allowed(),
        COMMITTED_PER_SWEEP,
        SHALLOW_COMMITTED,
        SHALLOW_SWEEPS,
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _read(cache: Path | None) -> dict[str, Any]:
    try:
        known = read_json(cache / FILE) if cache else {}
    except (OSError, ConfigError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(cache: Path, known: dict[str, Any]) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f"{FILE}.{os.getpid()}.partial"
        partial.write_text(json.dumps(known), encoding="utf-8")
        partial.replace(cache / FILE)
    except OSError:
        return  # the cache is optional
