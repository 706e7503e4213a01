"""Measure the effect of float32 rounding on samples.

    python -m recipes.default_model.last_digit [BUNDLE] [--prompts N] [--repeat K]

Draws the benchmark's prompts with the sequential sampler, then again with every number of the noise
changed to a neighbouring float32 number. The difference of the two samples limits how near any
float32 sampler can be expected to come to the sequential sample.
"""

from __future__ import annotations

import argparse

import mlx_starflow as sf  # before mlx itself: it loads the fast BLAS

# isort: split
import mlx.core as mx
import numpy as np

from mlx_starflow.benchmark.subject import Subject, model_subject
from mlx_starflow.flow import Flow


def moved(noise: mx.array, rng: np.random.Generator) -> mx.array:
    """The noise with every number replaced by the next float32 above or below it, at random."""
    numbers = np.array(noise)
    towards = np.where(rng.random(numbers.shape) < 0.5, -np.inf, np.inf)
    return mx.array(np.nextafter(numbers, towards.astype(np.float32)))


def distances(flow: Flow, subject: Subject, repeat: int) -> list[float]:
    """For every case, the largest difference of ``repeat`` changed samples, in standard
    deviations."""
    rng, found = np.random.default_rng(0), []
    for noise, context in zip(subject.noises, subject.contexts, strict=True):
        options = dict(guidance=subject.guidance, sampler="sequential", certify=False)
        sample = sf.invert(flow, noise, context, **options)
        differences = [
            mx.abs(sf.invert(flow, moved(noise, rng), context, **options) - sample).max()
            for _ in range(repeat)
        ]
        found.append((mx.max(mx.stack(differences)) / mx.std(sample)).item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", help="default: the embedded model")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=10)
    arguments = parser.parse_args()
    pipe = sf.load(arguments.bundle) if arguments.bundle else sf.load()
    subject = model_subject(pipe, arguments.prompts)
    found = distances(pipe.flow, subject, arguments.repeat)
    for number, distance in enumerate(found):
        print(f"{number:3}  {distance:.1e}  {subject.prompts[number]}")
    print(f"largest {max(found):.1e}, median {np.median(found):.1e}")


if __name__ == "__main__":
    main()
