"""Exact log-likelihoods of pictures under prompts; reports the noise that was added.

A flow that was trained with noise models noisy data, so noise is added to a clean picture first, K
times from one seed. The results are means over these K draws, with standard errors:

    latent models (noise "gaussian")   the mean of log p(x + noise_std e | context), e ~ N(0, I)
    TarFlow (noise "uniform")          the mean of log p(x + u | context), u uniform over the width
                                       of a pixel value; in bits, an upper bound on the coding cost
                                       of the 8-bit picture (arXiv 1511.01844)

The draws are the same for all prompts and all pictures, so differences between scores are less
noisy than the scores themselves.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..config import FlowConfig
from ..device.wired import wired, wired_steps
from ..errors import NumericsError, UsageError
from ..flow import Context, Flow
from ..flow.grid import Grid, grid_of, patchify
from .likelihood import LOG_2PI

NOISES = ("gaussian", "uniform", "none")
TOKENS = 4096  # most tokens in one pass; more would need memory without saving time


@dataclass(frozen=True)
class ScoreOptions:
    """The noise added to clean pictures, and the size of a pass."""

    draws: int = 8  # K, number of noise draws; 1 is used without noise
    seed: int = 0  # draw k depends on the seed and k only
    noise: str | None = None  # see NOISES; None: uniform for a TarFlow, else gaussian
    batch: int | None = None  # most pictures in one pass; None: as TOKENS allows

    def __post_init__(self) -> None:
        for name in ("draws", "batch"):
            value = getattr(self, name)
            if value is not None and (value != int(value) or value < 1):
                raise UsageError(f"{name} is {value}; expected a whole number of 1 or more.")
        if self.noise is not None and self.noise not in NOISES:
            raise UsageError(f"noise is {self.noise!r}; expected one of {', '.join(NOISES)}.")


@dataclass(frozen=True)
class Score:
    """The score of one picture under P contexts, from K noise draws."""

    log_p: np.ndarray  # (P, K) nats
    surprise: np.ndarray  # (P, T) nats per token, mean over draws; sums to the mean of -log_p
    grid: Grid  # rows and columns of the T tokens, in raster order
    numbers: int  # dimensions, H * W * C
    noise: str  # the kind of noise that was added, see NOISES
    noise_std: float  # of the gaussian noise; 0 for the others
    seed: int

    @property
    def draws(self) -> int:
        """K, the number of noise draws."""
        return self.log_p.shape[1]

    @property
    def by_frame(self) -> np.ndarray:
        """(P, N) nats: the log-likelihood of every latent frame of a clip given those before it,
        mean over draws; a row sums to ``mean``. A picture is one frame. In a model that is not
        causal in time the shares still add up, but are no conditional likelihoods."""
        frames = 1 if self.grid.frames is None else self.grid.frames
        return -self.surprise.reshape(len(self.surprise), frames, -1).sum(axis=-1)

    @property
    def mean(self) -> np.ndarray:
        """(P,) mean log-likelihood in nats."""
        return self.log_p.mean(axis=1)

    @property
    def standard_error(self) -> np.ndarray:
        """(P,) standard error of ``mean`` in nats; NaN with a single draw."""
        return _standard_error(self.log_p)

    @property
    def nats_per_dim(self) -> np.ndarray:
        """(P,) mean log-likelihood per dimension in nats (larger is more probable)."""
        return self.mean / self.numbers

    @property
    def bits_per_dim(self) -> np.ndarray:
        """(P,) negative log-likelihood per dimension in bits (smaller is more probable).

        With uniform noise, bits per dimension of the 8-bit picture. Otherwise -log2 of a density,
        which depends on the scale of the latent and may be negative.
        """
        offset = math.log(128.0) if self.noise == "uniform" else 0.0
        return (offset - self.nats_per_dim) / math.log(2.0)

    def posterior(self, first: int | None = None) -> np.ndarray:
        """(P,) probability of each context given the picture, for a uniform prior over the
        contexts. ``first``: use the first so many contexts only.

        With one draw this is Bayes' rule, exact for the noisy picture; with K draws, the normalised
        geometric mean of the K exact posteriors.
        """
        mean = self.mean[:first]
        weight = np.exp(mean - mean.max())
        return weight / weight.sum()

    def advantage(self, over: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean (P,) and standard error (P,), in nats, of log p(x | context) - log p(x | context
        number ``over``), from paired draws."""
        difference = self.log_p - self.log_p[over]
        return difference.mean(axis=1), _standard_error(difference)


def _standard_error(values: np.ndarray) -> np.ndarray:
    draws = values.shape[1]
    if draws == 1:
        return np.full(values.shape[0], np.nan)
    return values.std(axis=1, ddof=1) / math.sqrt(draws)


def score_pictures(
    flow: Flow, x: mx.array, contexts: Context = None, options: ScoreOptions | None = None
) -> list[Score]:
    """Score clean pictures or latents x (B, H, W, C) under each of P contexts.

    x: latents, or pixels in [-1, 1]. contexts: text features (P, L, D), int labels (P,), or None
    for an unconditional model (P = 1). Returns B scores. Errors: UsageError, NumericsError.
    """
    work = score_steps(flow, x, contexts, options or ScoreOptions())
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


@wired_steps
def score_steps(
    flow: Flow, x: mx.array, contexts: Context, options: ScoreOptions
) -> Generator[float, None, list[Score]]:
    """``score_pictures`` as an iterator over the fraction done, from 0 to 1; returns the scores."""
    kind = noise_kind(flow.config, options.noise)
    draws = 1 if kind == "none" else options.draws
    key, drawn = mx.random.key(options.seed), []
    for number in range(draws):
        key, own = mx.random.split(key)
        drawn.append(surprise(flow, noised(x, flow.config, kind, own), contexts, options.batch))
        yield (number + 1) / draws
    nats = np.stack(drawn)  # (K, P, B, T)
    return [
        Score(
            log_p=-nats[:, :, i].sum(axis=-1).T,
            surprise=nats[:, :, i].mean(axis=0),
            grid=grid_of(x, flow.config),
            numbers=x[0].size,
            noise=kind,
            noise_std=flow.config.noise_std if kind == "gaussian" else 0.0,
            seed=options.seed,
        )
        for i in range(x.shape[0])
    ]


@wired()
def surprise(
    flow: Flow, x: mx.array, contexts: Context = None, batch: int | None = None
) -> np.ndarray:
    """-log p(x | context) in nats per token: (P, B, T) float64.

    x (B, H, W, C): as the flow models it, with noise added. contexts: as for ``score_pictures``.
    The value of a token is the sum of log sigma over its numbers in all blocks, plus -log of their
    prior; the sum over tokens is -log p(x | context). Blocks that do not depend on the context are
    computed once for all contexts. Errors: UsageError, NumericsError.
    """
    grid, shared = grid_of(x, flow.config), unconditioned_blocks(flow.config)
    total = 1 if contexts is None else contexts.shape[0]
    whole = np.empty((total, x.shape[0], grid.tokens))
    batch = batch or max(1, TOKENS // grid.tokens)
    for start in range(0, x.shape[0], batch):
        rows = slice(start, start + batch)
        u = patchify(x[rows].astype(mx.float32), flow.config)
        nats = mx.zeros(u.shape[:2])
        u, nats = _through(flow, range(shared), u, nats, grid, None)
        for p in range(total):
            context = None
            if contexts is not None:
                context = mx.repeat(contexts[p : p + 1], u.shape[0], axis=0)
            context = flow.check_context(context, u.shape[0])
            v, own = _through(flow, range(shared, len(flow.blocks)), u, nats, grid, context)
            own = own + 0.5 * (mx.square(v) + LOG_2PI).sum(axis=-1)
            whole[p, rows] = np.array(own)
    if not np.isfinite(whole).all():
        raise NumericsError("The likelihood is NaN or infinite; is the picture finite?")
    return whole


def _through(
    flow: Flow, blocks: range, u: mx.array, nats: mx.array, grid: Grid, context: Context
) -> tuple[mx.array, mx.array]:
    for index in blocks:
        u, log_scale = flow.through_block(index, u, grid, context)
        if log_scale is not None:
            by_place = flow.order(index, grid).turn(log_scale)
            nats = nats - by_place.sum(axis=-1)
    mx.eval(u, nats)
    return u, nats


def unconditioned_blocks(config: FlowConfig) -> int:
    """The number of blocks, from the data side, whose result does not depend on the context."""
    if not (config.text_channels or config.num_classes):
        return len(config.blocks)
    sees = [block.conditioned and block.layers > 0 for block in config.blocks]
    return sees.index(True) if True in sees else len(sees)


def noise_kind(config: FlowConfig, asked: str | None = None) -> str:
    """The kind of noise (one of NOISES) for ``asked``, or the model's default for None. Errors:
    UsageError."""
    if asked is None:
        return "uniform" if config.model_type == "tarflow" else "gaussian"
    if asked == "uniform" and config.model_type != "tarflow":
        raise UsageError("noise 'uniform' is for models of pixels; this one models latents.")
    return asked


def noised(x: mx.array, config: FlowConfig, kind: str, key: mx.array) -> mx.array:
    """x (B, H, W, C) plus noise of a kind from NOISES; every row gets the same draw.

    "uniform": x must be 8-bit pixels p as p / 127.5 - 1. The result is (p + u) / 128 - 1 with u
    uniform in [0, 1), so that the 256 pixel values cover [-1, 1) evenly.
    """
    if kind == "none":
        return x
    if kind == "gaussian":
        return x + config.noise_std * mx.random.normal(x.shape[1:], key=key)
    pixels = mx.round((x + 1) * 127.5)
    return (pixels + mx.random.uniform(shape=x.shape[1:], key=key)) / 128 - 1
