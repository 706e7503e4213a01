"""Make an animation between the pictures of two seeds, by spherical interpolation of the noise.

python examples/between.py "a fox in snow" --seeds 1 2 --frames 12 --output between.gif
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlx.core as mx

import mlx_starflow as sf
from mlx_starflow.pictures.animation import save_animation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt")
    parser.add_argument("--seeds", nargs=2, type=int, default=(1, 2))
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("between.gif"))
    parser.add_argument("--model", help="a directory, a known name or a hub repository")
    arguments = parser.parse_args()

    with sf.load(arguments.model) as pipe:
        first, last = (pipe.generate(arguments.prompt, seed=s).noise[0] for s in arguments.seeds)
        steps = [i / (arguments.frames - 1) for i in range(arguments.frames)]
        noise = mx.stack([sf.slerp(first, last, t) for t in steps])
        result = pipe.generate(arguments.prompt, seed=0, num_images=arguments.frames, noise=noise)
    print(save_animation(result.images, arguments.output, fps=8, bounce=True))


if __name__ == "__main__":
    main()
