"""Building and running the host of examples/cpp."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

SOURCE = Path(__file__).parents[1] / "examples" / "cpp"
MLX = Path(mx.__file__).parent


@dataclass(frozen=True)
class Host:
    """The program, started with an empty environment: no PATH, hence no Python."""

    program: Path

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["env", "-i", str(self.program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def draw(self, export: Path, folder: Path, noise: mx.array, *more: object):
        """The latent before denoising, and the picture as integers."""
        given, latent, output = (
            folder / n for n in ("noise.safetensors", "l.safetensors", "p.png")
        )
        mx.save_safetensors(str(given), {"noise": noise})
        places = ["--noise", given, "--latent", latent, "--output", output]
        done = self.run(export, *more, *places)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{output}\n"
        with Image.open(output) as picture:
            return mx.load(str(latent))["latent"], np.array(picture).astype(int)

    def score(self, export: Path, folder: Path, latent: mx.array, *more: object) -> float:
        mx.save_safetensors(str(folder / "x.safetensors"), {"latent": latent})
        done = self.run(export, *more, "--score", folder / "x.safetensors")
        assert done.returncode == 0, done.stderr
        return float(done.stdout)


@pytest.fixture(scope="session")
def host(tmp_path_factory) -> Host:
    """The program, built once; without a compiler or CMake the tests are skipped."""
    missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    if missing or not (MLX / "share" / "cmake").is_dir():
        pytest.skip(f"building examples/cpp needs {' and '.join(missing or ['the files of mlx'])}")
    build = tmp_path_factory.mktemp("native") / "build"
    quickly = ["-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_CXX_FLAGS_RELEASE=-O0"]
    for command in (
        ["cmake", "-S", SOURCE, "-B", build, f"-DMLX_ROOT={MLX}", *quickly],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return Host(build / "starflow")
