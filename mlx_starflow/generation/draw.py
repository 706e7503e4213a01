"""From settings to pictures: the work of one batch, as a generator of events.

It runs in the worker thread (device/worker.py). Closing the generator stops the work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import mlx.core as mx
import numpy as np
from PIL import Image

from ..config import ClipConfig
from ..device.blas import blas_in_use
from ..device.clock import Clock
from ..device.machine import device_name, mlx_version
from ..device.precision import tf32_in_use
from ..device.wired import wired
from ..errors import UsageError
from ..exact.denoise import denoise
from ..exact.noise import seeded_noise
from ..flow import Block, Context, Flow
from ..flow.grid import grid_of
from ..hub.cache import cache_directory
from ..pictures.arrays import check_finite, to_pictures
from ..pictures.clips import to_frames
from ..sampling import AUTO, BlockReport, Step, invert_steps
from ..sampling.tolerance import worst_accuracy
from ..sampling.windows import windows_for
from ..text.templates import EXTEND
from ..vae import Autoencoder
from ..vae.tiling import clip_tile, picture_tile
from ..version import __version__
from .components import Components, precision
from .context import PromptRows, prompt_rows, row_notes
from .events import (
    BlockDone,
    BlockProgress,
    Decoded,
    Denoised,
    Entering,
    Event,
    Finished,
    FramesDecoded,
    Loading,
    Phase,
    Preview,
    Started,
    TextEncoded,
)
from .given import given_latents
from .memory import plan_memory
from .result import Result
from .settings import Settings


def generation(
    components: Components,
    settings: Settings,
    noise: mx.array | None = None,
    previews: bool = False,
    low_ram: bool = False,
    given: Sequence[Image.Image] = (),
) -> Generator[Event, None, None]:
    """Draw one batch. Yields events; the last one, ``Finished``, holds the result.

    ``noise`` (B, h, w, c), for clips (B, N, h, w, c): None: from the seeds. ``previews``: also
    yield a ``Preview`` after each block. ``low_ram``: drop components as soon as they are not
    needed. ``given``: the pictures that the clips begin with.
    """
    with wired():
        yield from _generation(components, settings, noise, previews, low_ram, list(given))


def _generation(
    components: Components,
    settings: Settings,
    noise: mx.array | None,
    previews: bool,
    low_ram: bool,
    given: list[Image.Image],
) -> Generator[Event, None, None]:
    clock = Clock()
    plan = plan_memory(components, settings, low_ram)
    low_ram = plan.low_ram
    settings = dataclasses.replace(settings, vae_tiling=plan.tiled)
    warnings: tuple[str, ...] = (plan.warning,) if plan.warning else ()
    phases = _phases(components, settings)
    yield Started(phases[0].name, phases, len(settings.prompts), warnings)

    if components.flow_config.text_channels and not components.is_loaded("text_encoder"):
        yield Loading("text", "text_encoder")
    rows = _rows_of(components, settings)
    if rows.is_text:
        notes = row_notes(components, rows)
        warnings += notes
        if low_ram:
            components.drop("text_encoder")
        yield TextEncoded("text", notes)
    clock.lap("text")

    noise = noise_of(components, settings) if noise is None else noise
    mx.eval(noise)
    clean = begun = None
    if given:
        yield Entering("given")
        clean, begun = given_latents(components, settings, given, noise)
        check_finite(begun, "latent of the given frames")
        if low_ram:
            components.drop("vae")
        clock.lap("given")

    if not components.is_loaded("flow"):
        yield Loading("deep block", "flow")
    flow = components.flow
    own = rows.own(settings.prompts)
    context = rows.for_sampling(settings.prompts, settings.sample.guidance)
    del rows
    clock.lap("load")

    settings = with_windows(settings, flow, noise, context)
    x: mx.array = noise
    reports: list[BlockReport] = []
    for item in invert_steps(flow, noise, context, settings.sample, begun):
        name = block_name(item.block, len(flow.blocks))
        if isinstance(item, Step):
            yield _progress(name, item, flow, noise)
            continue
        x = item.x
        reports.append(item.report)
        mx.eval(x)
        check_finite(x, f"latent after the {name}")
        clock.lap(name)
        yield BlockDone(name, item.block, item.report)
        if previews:
            yield Preview(name, item.block, x)

    latents = x
    if settings.denoise:
        yield Entering("denoise")
        window = settings.denoising_window(components.config, flow.config)
        x = denoise(flow, x, own, settings.noise_std, settings.denoiser, window)
        if clean is not None:  # these frames are known without noise
            x = mx.concatenate([clean, x[:, clean.shape[1] :]], axis=1)
        mx.eval(x)
        check_finite(x, "denoised latent")
        clock.lap("denoise")
        yield Denoised("denoise", x)
    weights = precision(flow)
    del flow, context, own
    if low_ram:
        components.drop("flow")

    yield Entering("decode")
    clips: list[np.ndarray] = []
    if settings.frames is not None:
        known = cast(ClipConfig, components.config.clips)
        for event in decode_clips(components.vae, known, x, settings.vae_tiling):
            keep_frames(clips, event)
            yield event
        images = [Image.fromarray(clip[0]) for clip in clips]
    else:
        images = to_pictures(decode(components, x, settings.vae_tiling))
    if low_ram:
        components.drop("vae")
    clock.lap("decode")
    yield Decoded("decode")
    metadata = _metadata(components, settings, weights, reports, warnings, clock)
    metadata["low_ram"] = low_ram
    yield Finished(
        "decode",
        Result(
            images, latents, x, noise, settings, tuple(reports), warnings, metadata, tuple(clips)
        ),
    )


def _progress(name: str, step: Step, flow: Flow, noise: mx.array) -> BlockProgress:
    grid = grid_of(noise, flow.config)
    frames = step.tokens_total // grid.frame_tokens if grid.frames else 0
    done = step.tokens_done // grid.frame_tokens if frames > 1 else 0
    total = frames if frames > 1 else 0
    return BlockProgress(name, step.block, step.tokens_done, step.tokens_total, done, total)


def with_windows(settings: Settings, flow: Flow, noise: mx.array, context: Context) -> Settings:
    """The settings with the windows and the tolerance of the sampler "auto" filled in, as measured
    for this device, so that they can be replayed."""
    options = settings.sample
    if any(block.share is not None for block in flow.blocks if isinstance(block, Block)):
        return settings  # the times of ranks differ, but all must use the same windows
    if options.sampler != AUTO or options.windows is not None or options.block_size is not None:
        return settings
    grid = grid_of(noise, flow.config)
    found = windows_for(flow, grid, noise.shape[0], options, cache_directory(), context)
    tolerance = found.tolerance if options.tolerance is None else options.tolerance
    options = dataclasses.replace(options, windows=found.windows, tolerance=tolerance)
    return dataclasses.replace(settings, sample=options)


def _rows_of(components: Components, settings: Settings) -> PromptRows:
    """The encoded prompts of these settings."""
    return prompt_rows(
        components,
        settings.prompts,
        settings.aspect_ratio,
        settings.negative_prompt,
        settings.fps,
        EXTEND if settings.extend else "",
    )


def measured(components: Components, settings: Settings) -> dict[str, Any]:
    """The windows and the tolerance that ``generation`` would use for these settings on this
    device; {} for a sampler that needs none. Loads the flow, and a text encoder if there is one."""
    rows = _rows_of(components, settings)
    context = rows.for_sampling(settings.prompts, settings.sample.guidance)
    noise = noise_of(components, settings)
    flow, split = components.flow, components.split
    with contextlib.nullcontext() if split is None or split.share else split.alone():
        found = with_windows(settings, flow, noise, context).sample
    if found == settings.sample:
        return {}
    return {"windows": found.windows, "tolerance": found.tolerance}


def decode(components: Components, latents: mx.array, tiled: bool = False) -> mx.array:
    """Latents (B, h, w, c) -> images (B, H, W, C) in about [-1, 1]. ``tiled``: decode in tiles of
    half the longer side, which needs less memory; large latents are always decoded in tiles.
    Errors: UsageError if the autoencoder cannot decode in tiles."""
    vae = components.vae
    if vae is None:
        images = latents
    elif tiled:
        if "tile" not in inspect.signature(vae.decode).parameters:
            raise UsageError(
                "This model's autoencoder cannot decode in tiles; leave vae_tiling out."
            )
        images = cast(Any, vae).decode(latents, tile=picture_tile(*latents.shape[1:3]))
    else:
        images = vae.decode(latents)
    mx.eval(images)
    return images


def decode_clips(
    autoencoder: Autoencoder | None, known: ClipConfig, latents: mx.array, tiled: bool = False
) -> Iterator[FramesDecoded]:
    """Latents (B, N, h, w, c) -> frames as they come, one clip after another. ``tiled``: decode in
    two tiles along the longer side, which needs less memory."""
    vae = cast(Any, autoencoder)
    for clip in range(latents.shape[0]):
        own, first = latents[clip : clip + 1], 0
        if vae is None:
            parts, total = iter([own]), own.shape[1]
        else:
            tile = clip_tile(*own.shape[2:4]) if tiled else None
            parts = vae.decode_stream(own, tile)
            total = known.shown_frames(own.shape[1])
        for frames in parts:
            check_finite(frames, "frame")
            pixels = to_frames(np.array(frames[0]))
            yield FramesDecoded("decode", clip, first, total, pixels)
            first += len(pixels)


def keep_frames(clips: list[np.ndarray], event: FramesDecoded) -> None:
    """Write decoded frames to their place in ``clips``, (M, H, W, 3) each; a new clip is added when
    its first frames come."""
    if event.first == 0:
        clips.append(np.empty((event.total, *event.frames.shape[1:]), np.uint8))
    clips[-1][event.first : event.first + len(event.frames)] = event.frames


def noise_of(components: Components, settings: Settings) -> mx.array:
    """Standard normal noise, one seed per picture or clip."""
    return seeded_noise(noise_shape(components, settings), settings.seeds)


def noise_shape(components: Components, settings: Settings) -> tuple[int, ...]:
    """The shape of the noise of one picture (h, w, c) or clip (N, h, w, c)."""
    flow, factor = components.flow_config, components.factor
    frames = settings.latent_frames(components.config)
    shape = (settings.height // factor, settings.width // factor, flow.in_channels)
    return shape if frames is None else (frames, *shape)


def block_name(block: int, blocks: int) -> str:
    """The name of a block for users: "deep block" for the last, else "shallow N"."""
    return "deep block" if block == blocks - 1 else f"shallow {block + 1}"


def _phases(components: Components, settings: Settings) -> tuple[Phase, ...]:
    """The phases of the work in order, with shares estimated from their numbers of parameters."""
    flow = components.flow_config
    size = [b.layers * b.channels * (b.channels + b.mlp_channels) for b in flow.blocks]
    total = max(sum(size), 1)
    last = len(flow.blocks) - 1
    guided = [
        2 if settings.sample.in_block(i, last + 1).guidance and (b.conditioned or flow.num_classes)
        else 1
        for i, b in enumerate(flow.blocks)
    ]  # fmt: skip
    cost: dict[str, float] = {"text": 0.05 * total} if flow.text_channels else {}
    if settings.given_frames:
        cost["given"] = 0.05 * total
    for i in reversed(range(len(size))):
        cost[block_name(i, len(size))] = size[i] * guided[i]
    if settings.denoise:
        cost["denoise"] = 0.1 * total
    cost["decode"] = 0.1 * total
    whole = sum(cost.values())
    return tuple(Phase(name, value / whole) for name, value in cost.items())


def _metadata(
    components: Components,
    settings: Settings,
    weights: str,
    reports: list[BlockReport],
    warnings: tuple[str, ...],
    clock: Clock,
) -> dict[str, Any]:
    flow, model = components.flow_config, components.config
    data = settings.to_dict()
    if settings.denoise and settings.noise_std is None and settings.denoiser == "score":
        data["noise_std"] = flow.noise_std
    residuals = [r.residual for r in reports if r.residual is not None]
    return {
        **data,
        "generator": "mlx-starflow",
        "version": __version__,
        "mlx_version": mlx_version(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": components.name,
        "model_name": model.name,
        "weights": components.fingerprint,
        **({"adapters": components.adapter_records()} if components.adapters else {}),
        "dtype": components.dtype,
        "quantize": components.quantize,
        "precision": weights,
        "device": device_name(),
        "blas": blas_in_use(),
        "tf32": tf32_in_use(),
        "residual": max(residuals, default=None),
        "converged": all(r.converged for r in reports),
        "accuracy": worst_accuracy(reports),
        "blocks": [r.to_dict() for r in reports],
        "warnings": list(warnings),
        "seconds": {phase: round(s, 4) for phase, s in clock.seconds.items()},
        "peak_memory_bytes": clock.peaks,
    }
