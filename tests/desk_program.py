"""A job whose work takes no time: what handing an item out and keeping its picture takes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from mlx_starflow.pictures.arrays import write_whole
from mlx_starflow.ranks import Group, place_of, spread
from mlx_starflow.ranks.handing_out import Made

ITEMS, PICTURE = 300, os.urandom(150_000)

if __name__ == "__main__":
    folder = Path(sys.argv[1])

    def keep(item: int, made: Made) -> None:
        write_whole(folder / f"{item}.png", lambda file: file.write(made.blobs[0]))

    with Group(place_of(os.environ), sys.stderr.write) as group:
        began = time.perf_counter()
        spread(group, ITEMS, lambda item: Made({"item": item}, (PICTURE,)), keep)
        if group.rank == 0:
            sys.stdout.write(f"{(time.perf_counter() - began) / ITEMS}\n")
