"""What ``generate`` was asked, resolved against the model: nothing is left to a default."""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config import ASPECT_RATIOS, FlowConfig, ModelConfig
from ..errors import UsageError
from ..sampling import SampleOptions
from .aspect import image_size

MAX_SEED = 2**32  # seeds below are what mflux and mlx-lm take too


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers of one batch of pictures, but for the weights."""

    prompts: tuple[str, ...]  # one per picture
    seeds: tuple[int, ...]  # one per picture; its noise is drawn with this key alone
    width: int  # pixels
    height: int
    aspect_ratio: str  # "w:h"
    guidance: float  # 0 = none
    sampler: str
    tolerance: float | None  # None: the sampler's own
    block_size: int | None
    windows: tuple[int, ...] | None  # "auto": tokens solved at a time, for every block
    steps: int | None  # most sweeps over a window of tokens
    attention_temperature: float
    guide: str  # TarFlow: guided outputs
    annealed: bool  # TarFlow: guidance that grows along the tokens
    denoise: bool
    noise_std: float | None  # None: the model's own
    denoiser: str | None  # "score" | "learned"; None: without denoising

    def sample_options(self) -> SampleOptions:
        """The same in the sampler's terms, with the residual measured."""
        return SampleOptions(
            guidance=self.guidance,
            sampler=self.sampler,
            tolerance=self.tolerance,
            block_size=self.block_size,
            windows=self.windows,
            max_sweeps=self.steps,
            certify=True,
            guide=self.guide,
            annealed=self.annealed,
            attention_temperature=self.attention_temperature,
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def resolve(
    model: ModelConfig,
    flow: FlowConfig,
    factor: int,
    prompt: str | int | Sequence[str | int] | None,
    seed: int | Sequence[int] | None = None,
    num_images: int = 1,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    tolerance: float | None = None,
    block_size: int | None = None,
    windows: Sequence[int] | None = None,
    attention_temperature: float | None = None,
    guide: str | None = None,
    annealed: bool = False,
    denoise: bool | None = None,
    noise_std: float | None = None,
    denoiser: str | None = None,
    aspect_ratio: str | None = None,
    width: int | None = None,
    height: int | None = None,
) -> Settings:
    """Fill in the model's defaults and refuse what it cannot do (UsageError with the reason).

    ``factor``: pixels per number of the flow's picture along one side (1 without a VAE). For the
    other arguments see ``Pipeline.generate``.
    """
    prompts = _prompts(prompt, num_images, flow)
    conditional = bool(flow.text_channels or flow.num_classes)
    if guidance and not conditional:
        raise UsageError("guidance needs a prompt or a class; this model is unconditional.")
    if guidance is None:
        guidance = model.defaults.guidance if conditional else 0.0
    ratio, size = _size(flow, factor, aspect_ratio, width, height)
    settings = Settings(
        prompts=prompts,
        seeds=_seeds(seed, num_images, len(prompts)),
        width=size[0],
        height=size[1],
        aspect_ratio=ratio,
        guidance=float(guidance),
        sampler=sampler or model.defaults.sampler,
        tolerance=tolerance,
        block_size=block_size,
        windows=None if windows is None else tuple(windows),
        steps=steps,
        attention_temperature=attention_temperature or 1.0,
        guide=guide or "ab",
        annealed=annealed,
        **_denoising(
            flow, model.defaults.denoise if denoise is None else denoise, noise_std, denoiser
        ),
    )
    if settings.tolerance is None and settings.sampler == "auto":
        settings = dataclasses.replace(settings, tolerance=model.defaults.tolerance)
    if settings.sampler == "sequential":
        for name in ("steps", "tolerance", "block_size"):
            if getattr(settings, name) is not None:
                raise UsageError(
                    f"{name} is for samplers that solve tokens in parallel; the sequential one "
                    "computes every token once and exactly. Leave it out."
                )
    settings.sample_options()  # refuses what no sampler takes
    return settings


def sizes(flow: FlowConfig, factor: int) -> dict[str, tuple[int, int]]:
    """Aspect ratio -> (width, height) in pixels that the model was trained for."""
    unit = factor * flow.patch_size
    ratios = ASPECT_RATIOS if flow.mix_aspect else ("1:1",)
    return {ratio: image_size(ratio, flow.grid_size * unit, unit) for ratio in ratios}


def _size(
    flow: FlowConfig, factor: int, ratio: str | None, width: int | None, height: int | None
) -> tuple[str, tuple[int, int]]:
    known = sizes(flow, factor)
    listing = ", ".join(f"{r} ({w}x{h})" for r, (w, h) in known.items())
    if width is None and height is None:
        ratio = ratio or "1:1"
        if ratio not in known:
            raise UsageError(f"aspect_ratio is {ratio!r}; this model makes {listing}.")
        return ratio, known[ratio]
    fits = [
        r
        for r, (w, h) in known.items()
        if width in (None, w) and height in (None, h) and ratio in (None, r)
    ]
    if not fits:
        asked = f"{width or 'any'}x{height or 'any'}" + (f" at {ratio}" if ratio else "")
        raise UsageError(f"The size {asked} is none that this model makes: {listing}.")
    return fits[0], known[fits[0]]


def _prompts(prompt: Any, num_images: int, flow: FlowConfig) -> tuple[str, ...]:
    if num_images != int(num_images) or num_images < 1:
        raise UsageError(f"num_images is {num_images}; expected a whole number of 1 or more.")
    several = isinstance(prompt, Sequence) and not isinstance(prompt, str)
    given = list(prompt) if several else [prompt]
    prompts = ["" if p is None else str(p) for p in given]
    if not prompts:
        raise UsageError("The list of prompts is empty; give at least one.")
    if not (flow.text_channels or flow.num_classes):
        if any(prompts):
            raise UsageError("This model is unconditional: it takes no prompt. Leave it out.")
    elif None in given and flow.text_channels:
        raise UsageError("This model needs a prompt.")
    return tuple(p for p in prompts for _ in range(num_images))


def _seeds(seed: int | Sequence[int] | None, num_images: int, pictures: int) -> tuple[int, ...]:
    """One per picture: a list as it is, else seed, seed + 1, ... anew for every prompt."""
    if isinstance(seed, Sequence):
        if len(seed) != pictures:
            raise UsageError(f"{len(seed)} seeds for {pictures} pictures; give one for each.")
        seeds = tuple(seed)
    else:
        first = secrets.randbelow(MAX_SEED - num_images) if seed is None else seed
        seeds = tuple(first + i for i in range(num_images)) * (pictures // num_images)
    for s in seeds:
        if not isinstance(s, int) or isinstance(s, bool) or not 0 <= s < MAX_SEED:
            raise UsageError(f"The seed {s!r} is not a whole number from 0 to {MAX_SEED - 1}.")
    return seeds


def _denoising(
    flow: FlowConfig, denoise: bool, noise_std: float | None, method: str | None
) -> dict[str, Any]:
    learned = flow.denoiser is not None
    if not denoise:
        if noise_std is not None or method is not None:
            raise UsageError("noise_std and denoiser have no meaning without denoising.")
        return {"denoise": False, "noise_std": None, "denoiser": None}
    method = method or ("learned" if learned else "score")
    if method not in ("score", "learned"):
        raise UsageError(f"denoiser is {method!r}; expected 'score' or 'learned'.")
    if method == "learned" and not learned:
        raise UsageError("This model has no learned denoiser; use 'score'.")
    if method == "learned" and noise_std is not None:
        raise UsageError("A learned denoiser has its own noise level; leave noise_std out.")
    if noise_std is not None and not 0 <= noise_std < math.inf:
        raise UsageError(f"noise_std is {noise_std}; expected 0 or more.")
    return {"denoise": True, "noise_std": noise_std, "denoiser": method}
