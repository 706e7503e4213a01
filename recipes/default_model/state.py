"""Training states on disk, written to a new file and renamed, so none is ever incomplete."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import torch


def save_state(path: Path, state: dict) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def load_state(path: Path, device: str = "cpu") -> dict | None:
    """The last saved state, or None if there is none."""
    if not path.exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)


def step_generator(seed: int, step: int, device: str = "cpu") -> torch.Generator:
    """The random generator of one step, which depends only on seed and step, so that a resumed run
    computes the same numbers."""
    return torch.Generator(device).manual_seed(seed * 10_000_019 + step)


def pick_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache
def half_precision(device: str) -> bool:
    """Whether bfloat16 arithmetic is faster: on GPUs and on CPUs with instructions for it."""
    if device != "cpu":
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
