"""Draw a prompt several times, with progress, and save the pictures.

python examples/draw.py "a fox in snow" --seed 7 --count 3 --output foxes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlx_starflow as sf
from mlx_starflow.events import BlockDone, Finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("pictures"))
    parser.add_argument("--model", help="a directory, a known name or a hub repository")
    arguments = parser.parse_args()

    with sf.load(arguments.model) as pipe:
        events = pipe.stream(arguments.prompt, seed=arguments.seed, num_images=arguments.count)
        for event in events:
            if isinstance(event, BlockDone):
                print(f"{event.phase}: {event.report.seconds:.2f} s")
            if isinstance(event, Finished):
                result = event.result
    for i, seed in enumerate(result.settings.seeds):
        print(result.save(i, arguments.output / f"{seed}.png"))  # with its settings


if __name__ == "__main__":
    main()
