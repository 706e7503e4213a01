"""The sampler's windows, measured once per device and model shape and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..errors import ConfigError
from ..files.fields import is_whole
from ..files.json import read_json
from ..flow import Flow
from ..flow.grid import Grid
from . import SampleOptions
from .calibrate import COMMITTED_PER_SWEEP, SHALLOW_COMMITTED, SHALLOW_SWEEPS, calibrate

FILE = "windows.json"
_one_at_a_time = threading.Lock()  # threads that ask for the same measurement share the first


def windows_for(
    flow: Flow, grid: Grid, batch: int, options: SampleOptions, cache: Path | None
) -> tuple[int, ...]:
    """Windows of every block for ``SampleOptions.windows``: from the file ``cache``/windows.json
    where this device, precision, model shape, grid and batch were measured before, else measured
    now and written there. A cache that cannot be read or written costs a new measurement."""
    key = _key(flow, grid, batch, options)
    with _one_at_a_time:
        known = _read(cache)
        found = _windows(known.get(key), flow, grid)
        if found is not None:
            return found
        windows = calibrate(flow, grid, batch, options)
        if cache is not None:
            _write(cache, known | {key: list(windows)})
    return windows


def _windows(found: Any, flow: Flow, grid: Grid) -> tuple[int, ...] | None:
    """Stored windows; None where they are no windows of this flow."""
    if not isinstance(found, list) or len(found) != len(flow.blocks):
        return None
    if not all(is_whole(window, 1, grid.tokens) for window in found):
        return None
    return tuple(map(int, found))


def _key(flow: Flow, grid: Grid, batch: int, options: SampleOptions) -> str:
    device = mx.default_device()
    name = mx.device_info(device).get("device_name", str(device))
    layer = flow.blocks[-1].layers[0] if flow.config.blocks[-1].layers else None
    bits = getattr(layer.attention.qkv, "bits", "") if layer else ""
    parts = [name, mx.__version__, layer.dtype if layer else "", bits, flow.config, grid, batch]
    parts += [options.guidance > 0, COMMITTED_PER_SWEEP, SHALLOW_COMMITTED, SHALLOW_SWEEPS]
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
        return  # a disk that takes no cache is no reason to make no picture
