"""The loss of accuracy with fewer bits for the weights.

Measured are the change of log p of the same noisy latents, in nats per dimension, and the change
of the sample from the same noise, both compared with float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..bundle.quantize import Recipe
from ..device.clock import Clock
from ..device.typed import parameters_of, scalar
from ..errors import NumericsError, UsageError
from ..exact.denoise import denoise
from ..exact.likelihood import log_prob
from ..flow import Context, Flow
from ..sampling import invert
from . import Finish, Machine, this_machine
from .finish import psnr


@dataclass(frozen=True)
class Precision:
    """The precision of the large matrices: arguments of ``mlx_starflow.load``."""

    name: str
    dtype: str | None = None
    quantize: Recipe | None = None


REFERENCE = Precision("float32", "float32")
PRECISIONS = (
    Precision("bfloat16", "bfloat16"),
    Precision("float16", "float16"),
    Precision("8-bit", "float32", 8),
    Precision("mixed", "float32", "mixed"),
    Precision("4-bit", "float32", 4),
)


@dataclass(frozen=True)
class CostOptions:
    """Options of ``quantization_cost``."""

    guidance: float = 0.0  # of the samples
    seed: int = 0  # of the noise that is added before scoring
    sampler: str = "sequential"  # exact, so that all differences are due to the weights


@dataclass(frozen=True)
class PrecisionCost:
    """One precision compared with float32; likelihoods are means over the pictures."""

    precision: str
    megabytes: float  # of the flow's weights in memory
    nats_per_dim: float  # log p per dimension
    change: float  # of nats_per_dim; below zero: the pictures became less probable
    change_error: float | None  # standard error of the change; None: one picture
    largest_change: float  # of any picture, absolute
    distance: float  # of the samples, max abs, in standard deviations of the float32 samples
    rms_distance: float  # the same, root mean square
    image_psnr: float | None  # dB, of the worst picture; None: identical or no pictures


@dataclass(frozen=True)
class QuantizationResult:
    """The results for all precisions."""

    machine: Machine
    guidance: float
    scored: int  # number of pictures whose likelihood was computed
    sampled: int  # number of samples
    numbers: int  # dimensions of a picture
    rows: tuple[PrecisionCost, ...]  # float32 first

    def to_dict(self) -> dict[str, Any]:
        """The fields as values for JSON."""
        return dataclasses.asdict(self)


def quantization_cost(
    load: Callable[[Precision], Flow],
    context: Context,
    noise: mx.array,
    latents: mx.array | None = None,
    latent_context: Context = None,
    finish: Finish | None = None,
    options: CostOptions | None = None,
    precisions: Sequence[Precision] = PRECISIONS,
    progress: Callable[[str, float], None] | None = None,
) -> QuantizationResult:
    """Compare each precision with float32.

    load: returns the flow in a precision; one is in memory at a time. noise (B, h, w, c), context:
    for the samples, as for ``invert``. latents (N, h, w, c), latent_context: clean latents to
    score, to which noise of the training level is added, and their context; None: the denoised
    float32 samples with their own captions. finish: turns samples into pictures; None: compare
    latents only. progress: is called with the precision and the fraction done. Errors: UsageError,
    NumericsError.
    """
    options = options or CostOptions()
    progress = progress or (lambda what, share: None)
    if latents is None and latent_context is not None:
        raise UsageError("latent_context needs latents; give both or neither.")
    rows: list[PrecisionCost] = []
    first: _Measured | None = None
    for i, precision in enumerate([REFERENCE, *precisions]):
        progress(precision.name, i / (1 + len(precisions)))
        flow = load(precision)
        samples = invert(
            flow, noise, context,
            guidance=options.guidance, sampler=options.sampler, certify=False,
        )  # fmt: skip
        mx.eval(samples)
        if first is None:
            if latents is None:
                latent_context = None if context is None else context[: noise.shape[0]]
                latents = denoise(flow, samples, latent_context)
            key = mx.random.key(options.seed)
            std = flow.config.noise_std
            scored = latents + std * mx.random.normal(latents.shape, key=key)
            mx.eval(scored)
        measured = _measure(flow, precision, scored, latent_context, samples, context, finish)
        first = first or measured
        rows.append(_against(first, measured, scored[0].size))
        del flow
        mx.clear_cache()
    return QuantizationResult(
        machine=this_machine(),
        guidance=options.guidance,
        scored=scored.shape[0],
        sampled=noise.shape[0],
        numbers=scored[0].size,
        rows=tuple(rows),
    )


@dataclass(frozen=True)
class _Measured:
    name: str
    bytes: int
    log_p: np.ndarray  # (N,) nats
    samples: mx.array
    pictures: mx.array | None


def _measure(
    flow: Flow,
    precision: Precision,
    scored: mx.array,
    scored_context: Context,
    samples: mx.array,
    context: Context,
    finish: Finish | None,
) -> _Measured:
    parts = []
    for i in range(scored.shape[0]):  # one by one, since there may be many pictures
        own = None if scored_context is None else scored_context[i : i + 1]
        parts.append(log_prob(flow, scored[i : i + 1], own))
        mx.eval(parts[-1])
    log_p = np.array(mx.concatenate(parts)).astype(np.float64)
    if not np.isfinite(log_p).all() or not mx.isfinite(samples).all().item():
        raise NumericsError(f"In {precision.name} the flow computes NaN or infinity.")
    pictures = None
    if finish is not None:
        own = None if context is None else context[: samples.shape[0]]
        pictures = finish.picture(flow, samples, own, Clock())
    size = sum(value.nbytes for _, value in parameters_of(flow))
    return _Measured(precision.name, size, log_p, samples, pictures)


def _against(first: _Measured, own: _Measured, numbers: int) -> PrecisionCost:
    change = (own.log_p - first.log_p) / numbers
    count = change.size
    apart = (own.samples - first.samples) / mx.std(first.samples)
    decibel = None
    if own.pictures is not None and first.pictures is not None:
        mse = scalar(mx.square(own.pictures - first.pictures).mean(axis=(1, 2, 3)).max())
        decibel = psnr(mse)
    return PrecisionCost(
        precision=own.name,
        megabytes=own.bytes / 1e6,
        nats_per_dim=float(own.log_p.mean() / numbers),
        change=float(change.mean()),
        change_error=float(change.std(ddof=1) / math.sqrt(count)) if count > 1 else None,
        largest_change=float(np.abs(change).max()),
        distance=scalar(mx.abs(apart).max()),
        rms_distance=scalar(mx.sqrt(mx.square(apart).mean())),
        image_psnr=decibel,
    )
