"""Noise of encoded pictures on disk, with what it takes to decode it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..errors import UsageError
from ..pictures.arrays import write_whole

_KEY = "mlx-starflow"


def write_noise(path: Path, settings: dict[str, Any], **arrays: mx.array) -> Path:
    """Write arrays (one of them "noise") and JSON-able settings as .safetensors, never over a
    file; returns the path that was written."""
    about = {"format": "mlx", _KEY: json.dumps(settings)}
    return write_whole(path, lambda file: mx.save_safetensors(file, arrays, about), overwrite=False)


def noise_settings(path: Path) -> dict[str, Any]:
    """The settings stored by ``write_noise``; empty where another program wrote the file.
    Errors: UsageError."""
    if path.suffix != ".safetensors":
        return {}
    try:
        _, about = mx.load(str(path), return_metadata=True)
        settings = json.loads(about.get(_KEY, "{}"))
    except (ValueError, RuntimeError, OSError) as error:
        raise UsageError(f"{path}: this file cannot be read ({error}).") from None
    return settings if isinstance(settings, dict) else {}
