"""Which BLAS mlx uses on Linux. It is decided at import, so the tests start new processes."""

import ctypes
import os
import subprocess
import sys

import pytest


def has_openblas() -> bool:
    try:
        ctypes.CDLL("libopenblas.so.0")
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not has_openblas(), reason="needs Linux and OpenBLAS"
)


def run(code: str, **environment: str) -> str:
    env = {k: v for k, v in os.environ.items() if "OPENBLAS" not in k} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


IN_USE = "import mlx_starflow.device.blas as b; print(b.blas_in_use())"


def test_openblas_is_loaded_first_unless_told_not_to():
    assert run(IN_USE) == "OpenBLAS"
    assert "MLX_STARFLOW_OPENBLAS=0" in run(IN_USE, MLX_STARFLOW_OPENBLAS="0")
    assert run("import mlx.core;" + IN_USE).startswith("reference, slow")
