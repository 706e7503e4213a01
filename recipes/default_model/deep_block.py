"""Measure ways to invert the deep block in parallel.

    python -m recipes.default_model.deep_block [BUNDLE] [--prompts N] [--guidance W]

Counts the passes over the deep block's weights that the sliding window needs, as a mean over
prompts: by window, tolerance and first guess, with and without secants, and starting from the
sample of a quantized copy. Every result is compared with the sequential sample. The results are
printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import mlx_starflow as sf  # before mlx itself: it loads the fast BLAS

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_starflow.flow import Flow
from mlx_starflow.flow.grid import Grid, patchify, reverse
from mlx_starflow.sampling import SampleOptions
from mlx_starflow.sampling.conditional import Conditional
from mlx_starflow.sampling.jacobi import jacobi
from mlx_starflow.sampling.sequential import sequential
from mlx_starflow.sampling.sliding import COMMIT_SHARE, TOLERANCE, _Walk

BUNDLE = Path(__file__).parents[2] / "mlx_starflow" / "assets" / "default"
PROMPTS = (
    "a fox in snow",
    "two red birds over the sea at night",
    "a small house in the mountains, sunset",
    "a blue car in the city",
    "a green rabbit in the forest",
    "a rocket in the night sky",
    "a yellow fish in the sea",
    "a white cat on the beach",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """The inversion of the deep block for one prompt, and its correct result."""

    v: mx.array  # (1, T, D): noise in the block's token order
    context: mx.array  # (2, L, C): caption, null caption
    answer: mx.array  # (1, T, D), by the sequential sampler


class GuessingWalk(_Walk):
    """The sliding window with another first guess for new tokens than their noise: mean and scale
    of an earlier token ("neighbour" or "row"), with the token's own noise."""

    def __init__(self, *arguments, guess: str):
        super().__init__(*arguments, secants=False)
        self.guess, self.seen = guess, 0
        self.noise = np.array(self.v)
        self.sigmas, self.means = np.ones_like(self.noise), np.zeros_like(self.noise)

    def _sweep(self, start: int, stop: int, moved: np.ndarray | float = 0.0) -> np.ndarray:
        before = self.u[:, start - 1 : stop - 1] if start else self._shifted(stop)
        sigma, b = (np.array(a) for a in self.block.affine(mx.array(before + moved), start))
        self.sigmas[:, start:stop], self.means[:, start:stop] = sigma, b
        self.seen = max(self.seen, stop)
        back = 1 if self.guess == "neighbour" else self.block.grid.width
        source = np.arange(self.seen, self.block.tokens)
        source -= back * -(-(source - self.seen + 1) // back)  # the nearest computed token
        source = np.maximum(source, 0)
        unseen = self.sigmas[:, source] * self.noise[:, self.seen :] + self.means[:, source]
        self.u[:, self.seen :] = unseen
        return sigma * self.noise[:, start:stop] + b


class Bench:
    """The deep block of a model and some prompts for it."""

    def __init__(self, bundle: Path, prompts: int, guidance: float | None):
        pipe = sf.load(bundle)
        flow = self.flow = pipe.flow
        guidance = pipe.config.defaults.guidance if guidance is None else guidance
        self.options = SampleOptions(guidance=guidance)
        self.grid: Grid = flow.training_grid()
        texts = pipe.encode_prompts([*PROMPTS[:prompts], ""])
        side = flow.config.grid_size * flow.config.patch_size
        self.cases: list[Case] = []
        for i in range(prompts):
            key = mx.random.key(100 + i)
            z = mx.random.normal((1, side, side, flow.config.in_channels), key=key)
            v = patchify(z, flow.config)
            v = reverse(v) if flow.config.blocks[-1].flip else v
            case = Case(v, mx.concatenate([texts[i : i + 1], texts[-1:]]), v)
            answer, _ = self.solve(case, sequential)
            self.cases.append(dataclasses.replace(case, answer=answer))

    def block(self, case: Case, flow: Flow | None = None) -> Conditional:
        deep = (flow or self.flow).blocks[-1]
        context = case.context if self.options.guidance else case.context[:1]
        return Conditional(deep, self.grid, context, 1, self.options)

    def solve(self, case: Case, sampler: Callable, flow: Flow | None = None):
        block = self.block(case, flow)
        work = sampler(block, case.v, self.options)
        while True:
            try:
                next(work)
            except StopIteration as stop:
                return stop.value.tokens, block

    def slide(
        self,
        window: int,
        tolerance: float,
        secants: bool = True,
        guess: str = "noise",
        drafts: list[mx.array] | None = None,
    ) -> str:
        rows = []
        for i, case in enumerate(self.cases):
            block = self.block(case)
            arguments = (block, case.v, COMMIT_SHARE * tolerance, None)
            if guess == "noise":
                walk = _Walk(*arguments, secants=secants)
            else:
                walk = GuessingWalk(*arguments, guess=guess)
            if drafts is not None:
                walk.u = np.array(drafts[i])
            for _ in walk.run(0, min(window, self.grid.tokens)):
                pass
            rows.append(self.row(block, mx.array(walk.u), case))
        return self.summary(rows)

    def row(self, block: Conditional, tokens: mx.array, case: Case) -> tuple[float, float, float]:
        error = mx.abs(tokens - case.answer).max() / mx.std(case.answer)
        return block.weight_reads, block.evaluations / self.grid.tokens, error.item()

    @staticmethod
    def summary(rows: list[tuple[float, float, float]]) -> str:
        reads, evaluations, errors = zip(*rows, strict=True)
        return f"{np.mean(reads):.1f} | {np.mean(evaluations):.1f} | {max(errors):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=BUNDLE)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--guidance", type=float)
    arguments = parser.parse_args()
    bench = Bench(arguments.bundle, arguments.prompts, arguments.guidance)
    print(f"guidance {bench.options.guidance}, {arguments.prompts} prompts\n")
    print("| deep block | reads | evaluations per token | largest error (deviations) |")
    print("|---|---|---|---|")
    whole = bench.grid.tokens
    print(f"| sequential | {whole} | 1.0 | 0 |")
    published = [
        bench.row(block, tokens, case)
        for case in bench.cases
        for tokens, block in [bench.solve(case, jacobi)]
    ]
    print(f"| jacobi, released settings | {bench.summary(published)} |", flush=True)
    usual = TOLERANCE[mx.float32]
    for secants in (False, True):
        words = "with" if secants else "without"
        for tolerance in (usual, 10 * usual, 100 * usual):
            for window in (4, 8, 16, 32, whole):
                name = f"window {window}, tolerance {tolerance:g}, {words} secants"
                print(f"| {name} | {bench.slide(window, tolerance, secants)} |", flush=True)
    for guess in ("neighbour", "row"):
        for window in (16, 32):
            name = f"window {window}, without secants, first guess from the {guess}"
            print(f"| {name} | {bench.slide(window, usual, guess=guess)} |", flush=True)
    for bits in (8, 4):
        draft = sf.load(arguments.bundle).flow
        nn.quantize(
            draft.blocks[-1],
            bits=bits,
            class_predicate=lambda path, module: (
                path.startswith("layers")
                and isinstance(module, nn.Linear)
                and module.weight.shape[1] % 64 == 0
            ),
        )
        solved = [bench.solve(case, sequential, draft) for case in bench.cases]
        drafts = [tokens for tokens, _ in solved]
        alone = [
            bench.row(block, tokens, case)
            for (tokens, block), case in zip(solved, bench.cases, strict=True)
        ]
        print(f"| {bits}-bit sequential, alone | {bench.summary(alone)} |", flush=True)
        for window in (16, 32, whole):
            result = bench.slide(window, usual, drafts=drafts)
            print(f"| … then window {window} in full precision | {result} |", flush=True)


if __name__ == "__main__":
    main()
