"""Compares the memory that a request needs with that of the device, before anything is loaded."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..bundle.quantize import Recipe
from ..errors import OutOfMemoryError
from ..flow.cache import packings
from .components import Components
from .memory_need import Need, memory_need
from .settings import Settings

GIGABYTE = 1e9
RECIPES: tuple[Recipe, ...] = (8, "mixed", 4)  # precisions of weights that are suggested
_CONVERTED = "a model converted with --quantize"


@dataclass(frozen=True)
class Budget:
    """The memory of the device."""

    bytes: int  # recommended limit for one program
    physical: int  # all memory, in bytes
    device: str  # name for messages


@dataclass(frozen=True)
class MemoryPlan:
    """How a request will be carried out on this device."""

    need: Need
    budget: Budget
    low_ram: bool  # whether components are dropped as soon as they are not needed
    tiled: bool  # whether latents are decoded in tiles even if they are not large
    warning: str | None  # for the user; None if everything fits


def plan_memory(
    components: Components, settings: Settings, low_ram: bool = False, budget: Budget | None = None
) -> MemoryPlan:
    """Compare the memory that a request needs with the budget (None: that of this device).

    If the request fits only with ``low_ram``, or a clip only if it is decoded in tiles too, the
    plan does so and has a warning. If it does not fit the recommended limit at all, the warning
    says what would fit; the work may still succeed with swapping. Errors: OutOfMemoryError if it
    needs more than all memory of the device.
    """
    budget = budget or device_budget()
    need = memory_need(components, settings)
    if need.peak(low_ram) <= budget.bytes:
        return MemoryPlan(need, budget, low_ram, settings.vae_tiling, None)
    told, limit = _tell(need, False), f"{budget.device} recommends at most {_gb(budget.bytes)}"
    flags, way = "--low-ram", "components are dropped as soon as they are not needed"
    tiles = settings
    if need.peak(True) > budget.bytes:
        tiles = _in_tiles(components, settings)
        in_tiles = memory_need(components, tiles)
        if in_tiles.peak(True) < need.peak(True):
            need, settings, flags = in_tiles, tiles, "--low-ram --vae-tiling"
            way += ", and frames are decoded in tiles"
    if need.peak(True) <= budget.bytes:
        warning = f"{told}, and {limit}: {way} ({flags}, {_gb(need.peak(True))})."
        return MemoryPlan(need, budget, True, settings.vae_tiling, warning)
    warning = (
        f"{_tell(need, True)} even with {flags}, and {limit}. "
        f"{_what_fits(components, tiles, budget)}"
    )
    if need.peak(True) > budget.physical:
        raise OutOfMemoryError(warning)
    return MemoryPlan(need, budget, True, settings.vae_tiling, f"{warning} It may be very slow.")


def _in_tiles(components: Components, settings: Settings) -> Settings:
    """The settings of a clip with decoding in tiles, if that needs less memory."""
    tiles = dataclasses.replace(settings, vae_tiling=True)
    if settings.frames is None or settings.vae_tiling:
        return settings
    before, after = (memory_need(components, s).decoding for s in (settings, tiles))
    return tiles if after < before else settings


def largest_batch(
    components: Components, settings: Settings, most: int, low_ram: bool = False
) -> int:
    """How many pictures like the first of ``settings`` fit the recommended limit as one batch, at
    most ``most``. At least 1, even if that does not fit."""
    budget = device_budget()
    for count in range(most, 1, -1):
        like = dataclasses.replace(
            settings, prompts=settings.prompts[:1] * count, seeds=settings.seeds[:1] * count
        )
        if memory_need(components, like).peak(low_ram) <= budget.bytes:
            return count
    return 1


def device_budget() -> Budget:
    """The memory of MLX's default device."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if mx.default_device() == mx.Device(mx.cpu):
        return Budget(physical, physical, "this computer")
    facts: dict[str, Any] = mx.device_info()
    physical = int(facts.get("memory_size") or facts.get("total_memory") or physical)
    recommended = int(facts.get("max_recommended_working_set_size") or physical)
    return Budget(recommended, physical, str(facts.get("device_name", "this device")))


def _tell(need: Need, low_ram: bool) -> str:
    parts = {
        "text encoder": need.text_encoder,
        "flow": max(need.flow, need.loading),
        "VAE": need.vae,
        "work": max(need.sampling, need.denoising, need.decoding),
    }
    told = ", ".join(f"{name} {size / GIGABYTE:.1f}" for name, size in parts.items() if size)
    return f"This needs about {_gb(need.peak(low_ram))} ({told})"


def _what_fits(components: Components, settings: Settings, budget: Budget) -> str:
    """A sentence that suggests fewer pictures, a lower precision or a shorter clip, or says that
    nothing fits."""
    one = dataclasses.replace(settings, prompts=settings.prompts[:1], seeds=settings.seeds[:1])
    if len(settings.prompts) > 1 and memory_need(components, one).peak(True) <= budget.bytes:
        return f"One {'picture' if settings.frames is None else 'clip'} at a time would fit."
    changes = _changes_of_clip(components, settings, budget)
    if changes:
        listed = " or ".join(filter(None, (", ".join(changes[:-1]), changes[-1])))
        return f"With --low-ram, {listed} would fit."
    least = (0, "")
    for recipe in RECIPES:
        need = memory_need(components, settings, recipe, stored=True)
        for low_ram in (False, True):
            options = f"--quantize {recipe}" + (" --low-ram" if low_ram else "")
            if need.peak(low_ram) <= budget.bytes:
                return (
                    f"A model converted with --quantize {recipe} would fit "
                    f"({options}, {_gb(need.peak(low_ram))})."
                )
            least = (need.peak(low_ram), options)
    return (
        f"It needs at least {_gb(least[0])} ({least[1]}), so this device does not have enough "
        "memory."
    )


Change = tuple[str, Settings, Recipe | None]  # in words; the settings; the precision of weights


def _changes_of_clip(components: Components, settings: Settings, budget: Budget) -> list[str]:
    """The changes with which a clip would fit, each with its need: of every kind the least one.
    Empty if there is none, or for a picture."""
    clips, flow = components.config.clips, components.flow_config
    if settings.frames is None or clips is None:
        return []

    def first(changes: Iterable[Change]) -> list[str]:
        for name, changed, recipe in changes:
            size = memory_need(components, changed, recipe, stored=recipe is not None).peak(True)
            if size <= budget.bytes:
                return [f"{name} ({_gb(size)})"]
        return []

    def in_bits(bits: int) -> Settings:
        sample = dataclasses.replace(settings.sample, kv_bits=bits)
        return dataclasses.replace(settings, sample=sample)

    keys = packings(flow)  # no more bits than there are would fit either
    found = []
    if settings.denoiser == "score" and flow.denoiser is not None:
        learned = dataclasses.replace(settings, denoiser="learned", noise_std=None)
        found = first([("--denoiser learned", learned, None)])
    alone = first((f"--kv-bits {bits}", in_bits(bits), None) for bits in keys)
    alone += first((f"{_CONVERTED} {recipe}", settings, recipe) for recipe in RECIPES)
    both = (
        (f"{_CONVERTED} {recipe} and --kv-bits {bits}", in_bits(bits), recipe)
        for recipe in RECIPES
        for bits in keys
    )
    lengths = map(clips.shown_frames, range(clips.latent_frames(settings.frames) - 1, 1, -1))
    shorter = ((f"{m} frames", dataclasses.replace(settings, frames=m), None) for m in lengths)
    return found + (alone or first(both)) + first(shorter)


def _gb(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB"
