"""Write the reference numbers of ``mlx-starflow doctor`` for the embedded weights.

    python -m recipes.default_model.golden

Run it on a CPU whenever the embedded weights change. It computes in float32.
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
