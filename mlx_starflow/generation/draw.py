"""From settings to pictures: the work of one batch, from top to bottom, as a stream of events.

Runs in one thread (see ``worker``); leaving the iteration stops the work.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import mlx.core as mx

from ..device.blas import blas_in_use
from ..device.precision import tf32_in_use
from ..device.wired import wired
from ..exact.denoise import denoise
from ..flow import Context, Flow
from ..flow.grid import grid_of
from ..hub.cache import cache_directory
from ..pictures.arrays import check_finite, to_pictures
from ..sampling import AUTO, BlockReport, Step, invert_steps
from ..sampling.tolerance import worst_accuracy
from ..sampling.windows import windows_for
from ..text import TextFeatures
from ..version import __version__
from .components import Stages, precision
from .events import (
    BlockDone,
    BlockProgress,
    Decoded,
    Denoised,
    Entering,
    Event,
    Finished,
    Loading,
    Phase,
    Preview,
    Started,
    TextEncoded,
)
from .memory import plan_memory
from .result import Result
from .settings import Settings


def generation(
    stages: Stages,
    settings: Settings,
    noise: mx.array | None = None,
    previews: bool = False,
    low_ram: bool = False,
) -> Iterator[Event]:
    """The events of one batch; the last one holds the result."""
    with wired():
        yield from _generation(stages, settings, noise, previews, low_ram)


def _generation(
    stages: Stages,
    settings: Settings,
    noise: mx.array | None,
    previews: bool,
    low_ram: bool,
) -> Iterator[Event]:
    clock = _Clock()
    plan = plan_memory(stages, settings, low_ram)
    low_ram = plan.low_ram
    warnings = (plan.warning,) if plan.warning else ()
    phases = _phases(stages, settings)
    yield Started(phases[0].name, phases, len(settings.prompts), warnings)

    if stages.flow_config.text_channels:
        if not stages.loaded("text_encoder"):
            yield Loading("text", "text_encoder")
        encoded = _encode(stages, settings)
        captions, nulls = encoded.features[:-1], encoded.features[-1:]
        cuts = _cut_warnings(encoded, stages)
        warnings += cuts
        if low_ram:
            stages.drop("text_encoder")
        yield TextEncoded("text", cuts)
    clock.lap("text")

    if not stages.loaded("flow"):
        yield Loading("deep block", "flow")
    flow: Flow = stages.get("flow")
    if stages.flow_config.text_channels:
        own = _rows(captions, settings.prompts)
        both = mx.concatenate([own, mx.repeat(nulls, own.shape[0], axis=0)])
        context = both if settings.guidance else own
    else:
        own = context = labels_of(settings.prompts, stages)
    clock.lap("load")

    noise = seeded_noise(stages, settings) if noise is None else noise
    mx.eval(noise)
    settings = with_windows(settings, flow, noise, context)
    x, reports = noise, []
    for item in invert_steps(flow, noise, context, settings.sample_options()):
        name = block_name(item.block, len(flow.blocks))
        if isinstance(item, Step):
            yield BlockProgress(name, item.block, item.tokens_done, item.tokens_total)
            continue
        x, reports = item.x, [*reports, item.report]
        mx.eval(x)
        check_finite(x, f"latent after the {name}")
        clock.lap(name)
        yield BlockDone(name, item.block, item.report)
        if previews:
            yield Preview(name, item.block, x)

    latents = x
    if settings.denoise:
        yield Entering("denoise")
        x = denoise(flow, x, own, settings.noise_std, settings.denoiser)
        mx.eval(x)
        check_finite(x, "denoised latent")
        clock.lap("denoise")
        yield Denoised("denoise", x)
    weights = precision(flow)
    del flow, context, own
    if low_ram:
        stages.drop("flow")

    yield Entering("decode")
    images = to_pictures(decode(stages, x))
    clock.lap("decode")
    yield Decoded("decode")
    metadata = _metadata(stages, settings, weights, reports, warnings, clock)
    metadata["low_ram"] = low_ram
    yield Finished(
        "decode",
        Result(images, latents, x, noise, settings, tuple(reports), warnings, metadata),
    )


def with_windows(settings: Settings, flow: Flow, noise: mx.array, context: Context) -> Settings:
    """Settings that name the windows of the default sampler and what it can promise here, so that
    they can be replayed."""
    if settings.sampler != AUTO or settings.windows is not None or settings.block_size is not None:
        return settings
    grid, options = grid_of(noise, flow.config), settings.sample_options()
    found = windows_for(flow, grid, noise.shape[0], options, cache_directory(), context)
    tolerance = settings.tolerance or found.tolerance
    return dataclasses.replace(settings, windows=found.windows, tolerance=tolerance)


def decode(stages: Stages, latents: mx.array) -> mx.array:
    """Latents (B, h, w, c) -> images (B, H, W, C) in about [-1, 1]."""
    images = stages.get("vae").decode(latents) if stages.has("vae") else latents
    mx.eval(images)
    return images


def seeded_noise(stages: Stages, settings: Settings) -> mx.array:
    """(B, h, w, c) standard normal: every picture's from the key of its own seed alone."""
    flow, factor = stages.flow_config, stages.factor
    shape = (settings.height // factor, settings.width // factor, flow.in_channels)
    rows = [mx.random.normal(shape, key=mx.random.key(seed)) for seed in settings.seeds]
    return mx.stack(rows)


def labels_of(prompts: tuple[str, ...], stages: Stages) -> mx.array | None:
    """Class indices (B,) for a TarFlow, -1 where the prompt is empty; None if unconditional."""
    if not stages.flow_config.num_classes:
        return None
    return mx.array([stages.label(prompt) for prompt in prompts], dtype=mx.int32)


def block_name(block: int, blocks: int) -> str:
    return "deep block" if block == blocks - 1 else f"shallow {block + 1}"


def _encode(stages: Stages, settings: Settings) -> TextFeatures:
    """Each different prompt once, and the null caption last."""
    prompts = [*dict.fromkeys(settings.prompts), ""]
    return stages.get("text_encoder").encode(prompts, aspect_ratio=settings.aspect_ratio)


def _rows(features: mx.array, prompts: tuple[str, ...]) -> mx.array:
    order = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    return features[mx.array([order[prompt] for prompt in prompts])]


def _cut_warnings(encoded: TextFeatures, stages: Stages) -> tuple[str, ...]:
    length = stages.config.text.length
    return tuple(
        f"The prompt is longer than the {length} tokens this model reads; "
        f"cut off: {cut.text.strip()!r}"
        for cut in encoded.cuts
    )


def _phases(stages: Stages, settings: Settings) -> tuple[Phase, ...]:
    """The work in order, with shares by the parameters that each phase goes through."""
    flow = stages.flow_config
    size = [b.layers * b.channels * (b.channels + b.mlp_channels) for b in flow.blocks]
    total = max(sum(size), 1)
    guided = [
        2 if settings.guidance and (b.conditioned or flow.num_classes) else 1 for b in flow.blocks
    ]
    cost: dict[str, float] = {"text": 0.05 * total} if flow.text_channels else {}
    for i in reversed(range(len(size))):
        cost[block_name(i, len(size))] = size[i] * guided[i]
    if settings.denoise:
        cost["denoise"] = 0.1 * total
    cost["decode"] = 0.1 * total
    whole = sum(cost.values())
    return tuple(Phase(name, value / whole) for name, value in cost.items())


def _metadata(
    stages: Stages,
    settings: Settings,
    weights: str,
    reports: list[BlockReport],
    warnings: tuple[str, ...],
    clock: _Clock,
) -> dict[str, Any]:
    flow, model = stages.flow_config, stages.config
    data = settings.to_dict()
    if settings.denoise and settings.noise_std is None and settings.denoiser == "score":
        data["noise_std"] = flow.noise_std
    residuals = [r.residual for r in reports if r.residual is not None]
    return {
        **{k: list(v) if isinstance(v, tuple) else v for k, v in data.items()},
        "generator": "mlx-starflow",
        "version": __version__,
        "mlx_version": mx.__version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": stages.name,
        "model_name": model.name,
        "weights": stages.fingerprint,
        "dtype": stages.dtype,
        "quantize": stages.quantize,
        "precision": weights,
        "device": device_name(),
        "blas": blas_in_use(),
        "tf32": tf32_in_use(),
        "residual": max(residuals, default=None),
        "converged": all(r.converged for r in reports),
        "accuracy": worst_accuracy(reports),
        "blocks": [r.to_dict() for r in reports],
        "warnings": list(warnings),
        "seconds": clock.seconds,
        "peak_memory_bytes": clock.peaks,
    }


def device_name() -> str:
    """Kind and name of the device that does the work: "gpu (Apple M4 Max)"."""
    device = mx.default_device()
    kind = "gpu" if device == mx.Device(mx.gpu) else "cpu"
    return f"{kind} ({mx.device_info().get('device_name', 'unknown')})"


class _Clock:
    """Seconds and peak memory of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self._last = time.perf_counter()
        mx.reset_peak_memory()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 4)
        self.peaks[name] = mx.get_peak_memory()
        self._last = now
        mx.reset_peak_memory()
