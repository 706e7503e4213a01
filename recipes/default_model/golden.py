"""The numbers that ``mlx-starflow doctor`` compares with, made anew for the embedded weights.

    python -m recipes.default_model.golden

To be run whenever the embedded weights change, on a CPU in float32.
"""

from __future__ import annotations

import mlx_starflow as sf
from mlx_starflow.benchmark.golden import FILE, drawn_by


def main() -> None:
    with sf.load(dtype="float32") as pipe:
        golden = drawn_by(pipe)
    golden.write()
    print(f"{FILE}: {FILE.stat().st_size} bytes, weights {golden.weights}")


if __name__ == "__main__":
    main()
