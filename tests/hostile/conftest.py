"""Fixtures of hostile input: copies that tests may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mlx_starflow as sf


@pytest.fixture
def bundle(colours, tmp_path) -> Path:
    return shutil.copytree(colours, tmp_path / "bundle")


@pytest.fixture
def encoder(tmp_path) -> Path:
    """The embedded model's text encoder."""
    source = Path(sf.__file__).parent / "assets" / "default" / "text_encoder"
    return shutil.copytree(source, tmp_path / "text_encoder")
