"""Uncertainty of a drawn sample: maps by token, and a few numbers per picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..device.wired import wired
from ..exact.composition import composition
from ..exact.encoding import encode_block
from ..flow import Block, Context, Flow
from ..flow.grid import Grid, grid_of, patchify
from ..generation.result import Result
from ..pipeline import Pipeline
from ..sampling import SampleOptions, invert
from ..sampling.conditional import Conditional
from ..sampling.invert import stacked_context


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of one sample."""

    sigma: np.ndarray  # (rows, columns): standard deviation of each token, see ``sigmas``
    surprise: np.ndarray  # (rows, columns) nats: each token's share of -log p(x | prompt)
    log_p: float  # nats, log p(x | prompt) of the sample before denoising
    gain: float | None  # nats, log p(x | prompt) - log p(x | null); None without a prompt
    residual: float | None  # largest of all blocks and of the whole batch; None: not measured
    last_digit: float  # sensitivity to rounding, see ``last_digit``

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the maps, as values for JSON."""
        return {
            "log_p": self.log_p,
            "gain": self.gain,
            "residual": self.residual,
            "last_digit": self.last_digit,
            "mean_sigma": float(np.exp(np.log(self.sigma).mean())),
            "largest_surprise": float(self.surprise.max()),
        }


@wired()
def uncertainty(pipe: Pipeline, result: Result) -> list[Uncertainty]:
    """The uncertainty of every picture of a result. Takes about as long as drawing the batch
    sequentially twice, and three parallel passes. Errors: NumericsError."""
    settings, flow, x = result.settings, pipe.flow, result.latents
    rows = pipe.prompt_rows(settings.prompts, settings.aspect_ratio, settings.negative_prompt)
    options = dataclasses.replace(
        settings.sample, sampler="sequential", tolerance=None, block_size=None, max_sweeps=None,
        windows=None, certify=False,
    )  # fmt: skip
    sampling = rows.for_sampling(settings.prompts, options.guidance)
    grid = grid_of(x, flow.config)
    own = composition(flow, x, rows.own(settings.prompts)).sum(axis=2)
    null = pipe.prompt_rows([""], settings.aspect_ratio).own([""] * x.shape[0])
    less = None if null is None else composition(flow, x, null).sum(axis=2)
    sigma = sigmas(flow, x, grid, sampling, options)
    moved = last_digit(flow, result.noise, sampling, options)
    measured = [r.residual for r in result.reports if r.residual is not None]
    shape = (grid.height, grid.width)
    return [
        Uncertainty(
            sigma=sigma[i].reshape(shape),
            surprise=own[i].reshape(shape),
            log_p=-float(own[i].sum()),
            gain=None if less is None or not prompt else float(less[i].sum() - own[i].sum()),
            residual=max(measured, default=None),
            last_digit=float(moved[i]),
        )
        for i, prompt in enumerate(settings.prompts)
    ]


def sigmas(
    flow: Flow, x: mx.array, grid: Grid, context: Context, options: SampleOptions
) -> np.ndarray:
    """(B, T) in raster order: the standard deviation with which the deep block draws each token of
    x, guidance included; the geometric mean of sigma over the token's numbers."""
    deep, block = [(i, b) for i, b in enumerate(flow.blocks) if isinstance(b, Block)][-1]
    context = stacked_context(flow, context, x.shape[0], options)
    u = patchify(x.astype(mx.float32), flow.config)
    for index in range(deep):
        u, _ = encode_block(flow, index, u, grid, context, options)
        mx.eval(u)
    order = flow.order(deep, grid)
    conditional = Conditional(block, grid, context, u.shape[0], options)
    sigma, _ = conditional.all_at_once(order.turn(u))
    return np.array(mx.exp(mx.log(order.turn(sigma)).mean(axis=-1)))


def last_digit(
    flow: Flow, noise: mx.array, context: Context, options: SampleOptions, seed: int = 0
) -> np.ndarray:
    """(B,): sensitivity of the sequential sample to rounding. The largest change of any number of
    the sample, in standard deviations of the sample, when every number of the noise is replaced by
    the next float32 above or below (chosen by ``seed``)."""
    rng, numbers = np.random.default_rng(seed), np.array(noise, dtype=np.float32)
    towards = np.where(rng.random(numbers.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
    near = mx.array(np.nextafter(numbers, towards))
    first = invert(flow, mx.array(numbers), context, **_given(options))
    second = invert(flow, near, context, **_given(options))
    axes = (1, 2, 3)
    return np.array(mx.abs(second - first).max(axis=axes) / (mx.std(first, axis=axes) + 1e-12))


def _given(options: SampleOptions) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
