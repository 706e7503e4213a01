"""The installed command works independently of the files in the working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_starflow as sf

ROOT = Path(__file__).parents[1]
STRAY = "raise SystemExit('a stray module was run')\n"


@pytest.fixture
def littered(tmp_path) -> Path:
    """A directory with a cli.py and a convert/ of somebody else's."""
    (tmp_path / "cli.py").write_text(STRAY)
    (tmp_path / "convert").mkdir()
    (tmp_path / "convert" / "__init__.py").write_text(STRAY)
    return tmp_path


@pytest.mark.parametrize("arguments", [["--version"], ["convert", "--help"]])
def test_foreign_modules_of_the_same_names_are_not_run(littered, arguments):
    path = os.pathsep.join((".", str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "mlx_starflow", *arguments],
        cwd=littered,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "stray" not in done.stdout + done.stderr


def test_the_converter_is_the_one_beside_the_package(littered):
    program = (
        "from mlx_starflow.hub.converter import converter_module\n"
        "print(converter_module('from_hub').__file__)\n"
    )
    for where, path in ((littered, f".{os.pathsep}{ROOT}"), (ROOT, str(ROOT))):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=where,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(done.stdout.strip()) == ROOT / "convert" / "from_hub.py"


def test_the_names_of_the_library():
    """Names that other programs use; none of them goes away."""
    assert {
        "Flow", "Pipeline", "SampleOptions", "StarflowError", "__version__", "bits_per_dim",
        "denoise", "encode", "infill", "invert", "invert_steps", "load", "log_prob",
        "score_pictures", "slerp",
    } <= set(sf.__all__)  # fmt: skip
    assert all(hasattr(sf, name) for name in sf.__all__)
