"""``python -m recipes.default_model.painter --count N --seed S --output DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .shards import write_shards


def main() -> None:
    parser = argparse.ArgumentParser(description="Paint captioned scenes into .npz shards.")
    parser.add_argument("--count", type=int, required=True, help="paintings in all")
    parser.add_argument("--seed", type=int, default=0, help="which series of paintings")
    parser.add_argument("--output", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--size", type=int, default=128, help="pixels per side")
    parser.add_argument("--shard", type=int, default=2048, help="paintings per shard")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    for path in write_shards(
        options.output, options.count, options.seed, options.size, options.shard, options.workers
    ):
        sys.stdout.write(f"{path}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
