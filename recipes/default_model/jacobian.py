"""Measure how the deep block's tokens depend on one another, and how much errors grow.

    python -m recipes.default_model.jacobian [--prompts N]

For samples of the embedded model, computes the Jacobian J of the map u -> sigma(u) v + b(u) of all
tokens with central differences. Prints the share of its squared entries by the distance of the two
tokens, and the largest factor between a residual and the error of the sample, |(I - J)^-1|. Takes
one or two minutes per prompt.
"""

from __future__ import annotations

import argparse

import mlx_starflow  # noqa: F401  before mlx itself: it loads the fast BLAS

# isort: split
import mlx.core as mx
import numpy as np

from mlx_starflow.sampling.conditional import Conditional

from .deep_block import BUNDLE, PROMPTS, Bench, Case

STEP, AT_ONCE = 1e-3, 32


def jacobian(bench: Bench, case: Case) -> np.ndarray:
    """The Jacobian (T D, T D): derivatives of the rows' numbers by the columns' numbers."""
    tokens, channels = case.answer.shape[1:]
    size = tokens * channels
    context = mx.repeat(case.context, AT_ONCE, axis=0)
    deep = bench.flow.blocks[-1]

    def sweep(u: mx.array) -> mx.array:
        block = Conditional(deep, bench.grid, context, AT_ONCE, bench.options)
        sigma, b = block.all_at_once(u)
        return sigma * case.v + b

    columns = []
    for first in range(0, size, AT_ONCE):
        step = np.zeros((AT_ONCE, size), np.float32)
        step[np.arange(AT_ONCE), first + np.arange(AT_ONCE)] = STEP
        step = mx.array(step.reshape(AT_ONCE, tokens, channels))
        slope = (sweep(case.answer + step) - sweep(case.answer - step)) / (2 * STEP)
        columns.append(np.array(slope).reshape(AT_ONCE, size).T)
    return np.concatenate(columns, axis=1)


def shares(j: np.ndarray, tokens: int) -> dict[int, float]:
    """Share of the squared entries by the distance of the two tokens in the block's order."""
    blocks = np.square(j).reshape(tokens, -1, tokens, j.shape[1] // tokens).sum(axis=(1, 3))
    return {k: np.trace(blocks, -k) / blocks.sum() for k in range(1, tokens)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=2)
    arguments = parser.parse_args()
    bench = Bench(BUNDLE, arguments.prompts, None)
    tokens, row = bench.grid.tokens, bench.grid.width
    for prompt, case in zip(PROMPTS, bench.cases, strict=False):
        j = jacobian(bench, case)
        part = shares(j, tokens)
        growth = np.linalg.norm(np.linalg.inv(np.eye(len(j)) - j), 2)
        near = ", ".join(f"{k} back {part[k]:.0%}" for k in (1, 2, row - 1, row, row + 1))
        print(f"{prompt}: {near}; |J| {np.linalg.norm(j, 2):.1f}, growth {growth:.0f}", flush=True)


if __name__ == "__main__":
    main()
