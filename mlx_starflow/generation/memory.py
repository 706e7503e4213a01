"""Compares the memory that a request needs with that of the device, before anything is loaded."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..errors import OutOfMemoryError
from .components import Components
from .memory_need import Need, memory_need
from .settings import Settings

GIGABYTE = 1e9


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
    warning: str | None  # for the user; None if everything fits


def plan_memory(
    components: Components, settings: Settings, low_ram: bool = False, budget: Budget | None = None
) -> MemoryPlan:
    """Compare the memory that a request needs with the budget (None: that of this device).

    If the request fits only with ``low_ram``, the plan uses it and has a warning. If it does not
    fit the recommended limit at all, the warning says what would fit; the work may still succeed
    with swapping. Errors: OutOfMemoryError if it needs more than all memory of the device.
    """
    budget = budget or device_budget()
    need = memory_need(components, settings)
    if need.peak(low_ram) <= budget.bytes:
        return MemoryPlan(need, budget, low_ram, None)
    if need.peak(True) <= budget.bytes:
        sentence = (
            f"{_tell(need, False)}, and {budget.device} recommends at most "
            f"{_gb(budget.bytes)}: components are dropped as soon as they are not needed "
            f"(--low-ram, {_gb(need.peak(True))})."
        )
        return MemoryPlan(need, budget, True, sentence)
    sentence = (
        f"{_tell(need, True)} even with --low-ram, and {budget.device} recommends at most "
        f"{_gb(budget.bytes)}. {_what_fits(components, settings, budget)}"
    )
    if need.peak(True) > budget.physical:
        raise OutOfMemoryError(sentence)
    return MemoryPlan(need, budget, True, sentence + " It may be very slow.")


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
    """A sentence that suggests fewer pictures or a lower precision, or says that nothing fits."""
    one = dataclasses.replace(settings, prompts=settings.prompts[:1], seeds=settings.seeds[:1])
    if len(settings.prompts) > 1 and memory_need(components, one).peak(True) <= budget.bytes:
        return "One picture at a time would fit."
    fewer = _fewer_frames(components, settings, budget)
    if fewer:
        return fewer
    least = (0, "")
    for recipe in (8, "mixed", 4):
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


def _fewer_frames(components: Components, settings: Settings, budget: Budget) -> str:
    """A sentence: the longest part of a clip that fits, and the best precision in which the whole
    clip does; "" where nothing of this fits or it is a picture."""
    clips = components.config.clips
    if settings.frames is None or clips is None:
        return ""
    found = []
    for recipe in (8, "mixed", 4):
        need = memory_need(components, settings, recipe, stored=True)
        if need.peak(True) <= budget.bytes:
            found.append(f"a model converted with --quantize {recipe} ({_gb(need.peak(True))})")
            break
    for latent in range(clips.latent_frames(settings.frames) - 1, 1, -1):
        shorter = dataclasses.replace(settings, frames=clips.shown_frames(latent))
        size = memory_need(components, shorter).peak(True)
        if size <= budget.bytes:
            found.append(f"{shorter.frames} frames ({_gb(size)})")
            break
    return f"{' or '.join(found)} would fit with --low-ram.".capitalize() if found else ""


def _gb(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB"
