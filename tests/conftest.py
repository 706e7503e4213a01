"""What all tests share: where the reference numbers are, and converted copies of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared" / "fixtures"


def case_dir(name: str) -> Path:
    """The directory of a reference case: the repository's own copy, else the shared one."""
    for folder in (DATA / name, SHARED / name):
        if folder.is_dir():
            return folder
    pytest.skip(f"the reference case {name!r} is not among tests/data and no shared copy is here")


def case_tensors(name: str) -> dict[str, np.ndarray]:
    """The arrays of a reference case (float32; images and latents channels first)."""
    with np.load(case_dir(name) / "tensors.npz") as arrays:
        return dict(arrays)


def case_info(name: str) -> dict:
    """case.json of a reference case."""
    return json.loads((case_dir(name) / "case.json").read_text())
