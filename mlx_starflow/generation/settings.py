"""The settings of a batch of pictures, checked and with the model's defaults filled in."""

from __future__ import annotations

import dataclasses
import difflib
import math
import random
import secrets
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config import ASPECT_RATIOS, FlowConfig, ModelConfig
from ..errors import UsageError
from ..files.fields import Fields
from ..sampling import AUTO, SampleOptions
from .aspect import image_size
from .length import clip_options, denoising_window, resolve_clip

MAX_SEED = 2**32  # seeds must be smaller, as in mflux and mlx-lm
RANDOM = "random"  # aspect ratio: chosen from the model's by the seed
MAX_PICTURES = 1024  # in one batch
MAX_SIDE = 1 << 16  # pixels
MAX_BLOCKS = 1000  # most entries of stored windows
_OPTION_KINDS: dict[str, Any] = {  # stored options that are not fields of SampleOptions
    "aspect_ratio": str,
    "denoise": bool,
    "noise_std": float,
    "denoiser": str,
    "negative_prompt": str,
    "vae_tiling": bool,
    "frames": int,
    "fps": int,
    "extend": bool,
    "given_frames": int,
}
_OF_CLIPS = ("frames", "fps", "extend", "given_frames", "window", "context_frames")
_OTHER_OPTIONS = (
    *_OPTION_KINDS,
    "image",
    "video",
    "seed",
    "num_images",
    "width",
    "height",
    "noise",
    "cancel",
    "progress",
)


@dataclass(frozen=True)
class Settings:
    """All settings that determine one batch of pictures for given weights."""

    prompts: tuple[str, ...]  # one per picture
    seeds: tuple[int, ...]  # one per picture; its noise depends on this seed only
    width: int  # pixels
    height: int
    aspect_ratio: str  # "w:h"
    sample: SampleOptions  # how the noise becomes data
    denoise: bool
    noise_std: float | None  # noise level for denoising; None: the model's
    denoiser: str | None  # "score" | "learned"; None: no denoising
    negative_prompt: str = ""  # guidance leads away from it; "" is the null caption
    vae_tiling: bool = False  # decode small pictures in tiles too
    frames: int | None = None  # frames of a clip, after decoding; None: a picture
    fps: int = 0  # frames per second in the prompt and the file; 0: a picture
    extend: bool = False  # the captions say that the clip continues another
    given_frames: int = 0  # number of latent frames that are given

    def latent_frames(self, model: ModelConfig) -> int | None:
        """The number of latent frames of a clip; None for a picture."""
        if self.frames is None or model.clips is None:
            return None
        return model.clips.latent_frames(self.frames)

    def denoising_window(self, model: ModelConfig, flow: FlowConfig) -> int | None:
        """The number of latent frames that are denoised at a time; None for a picture."""
        if self.frames is None or model.clips is None:
            return None
        return denoising_window(model.clips, flow, self.sample.window, self.denoiser)

    @classmethod
    def from_dict(cls, data: Any, where: str = "settings") -> Settings:
        """The settings from the output of ``to_dict``, or from those stored in a picture. Errors:
        UsageError naming ``where``, the key and the value."""
        fields = Fields(data, where, UsageError)
        options, _ = read_options(fields)
        prompts, seeds, _ = read_pictures(fields)
        sample = {f.name: options.pop(f.name) for f in SampleOptions.asked() if f.name in options}
        options["aspect_ratio"] = fields.text("aspect_ratio")
        return cls(
            prompts=prompts,
            seeds=seeds,
            width=fields.whole("width", low=1, high=MAX_SIDE),
            height=fields.whole("height", low=1, high=MAX_SIDE),
            sample=SampleOptions(**sample),
            **{"denoise": False, "noise_std": None, "denoiser": None, **options},
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as one flat dictionary for JSON, the sampling options included."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del own["sample"]
        flat = {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}
        flat |= self.sample.to_dict()
        return {k: v for k, v in flat.items() if self.frames is not None or k not in _OF_CLIPS}


def read_options(fields: Fields) -> tuple[dict[str, Any], set[str]]:
    """The options of ``Pipeline.generate`` in stored settings, with former names replaced by
    current ones; and the set of all names that options may have in stored settings."""
    options = {name: _value(fields, name, kind) for name, kind in _OPTION_KINDS.items()}
    known, hints = set(_OPTION_KINDS), typing.get_type_hints(SampleOptions)
    for f in SampleOptions.asked():
        names = (f.name, *f.metadata["former"])
        known |= set(names)
        found = next((name for name in names if name in fields), f.name)
        options[f.name] = _value(fields, found, hints[f.name])
    return {name: value for name, value in options.items() if value is not None}, known


def _value(fields: Fields, name: str, kind: Any) -> Any:
    """The value under a name, checked for the type of a field such as ``float | None``."""
    plain = next((t for t in typing.get_args(kind) if t is not type(None)), kind)
    if typing.get_origin(kind) is tuple or typing.get_origin(plain) is tuple:
        return fields.wholes(name, None, low=1, items=MAX_BLOCKS)
    if plain is bool:
        return fields.switch(name, None)
    if plain is int:
        return fields.whole(name, None)
    return fields.number(name, None) if plain is float else fields.text(name, None)


def read_pictures(fields: Fields) -> tuple[tuple[str, ...], tuple[int, ...], int]:
    """Prompts and seeds of the batch in which a picture was drawn, and its index in the batch."""
    batch = fields.fields("batch", None)
    if batch is None and "prompts" not in fields:
        seed = fields.whole("seed", high=MAX_SEED - 1)
        return (fields.text("prompt", ""),), (seed,), 0
    whole = fields if batch is None else batch
    prompts = whole.texts("prompts", items=MAX_PICTURES)
    seeds = whole.wholes("seeds", high=MAX_SEED - 1, items=MAX_PICTURES)
    if not prompts or len(prompts) != len(seeds):
        raise whole.refuse("seeds", f"one for each of {len(prompts)} prompts, and at least one")
    index = 0 if batch is None else batch.whole("index", high=len(prompts) - 1)
    return prompts, seeds, index


def resolve(
    model: ModelConfig,
    flow: FlowConfig,
    factor: int,
    prompt: str | int | Sequence[str | int] | None,
    seed: int | Sequence[int] | None = None,
    *,
    num_images: int = 1,
    aspect_ratio: str | None = None,
    width: int | None = None,
    height: int | None = None,
    denoise: bool | None = None,
    noise_std: float | None = None,
    denoiser: str | None = None,
    negative_prompt: str | None = None,
    vae_tiling: bool | None = None,
    frames: int | None = None,
    fps: int | None = None,
    extend: bool | None = None,
    given_frames: int | None = None,
    **sampling: Any,
) -> Settings:
    """Fill in the model's defaults and check the request. Errors: UsageError.

    ``factor``: pixels per latent cell along one side (1 without a VAE). ``sampling``: the fields
    of ``SampleOptions``, None for the model's default. For the other arguments see
    ``Pipeline.generate``.
    """
    prompts = _prompts(prompt, num_images, flow)
    seeds = _seeds(seed, num_images, len(prompts))
    if aspect_ratio == RANDOM:
        aspect_ratio = _random_ratio(flow, factor, width, height, seeds[0])
    ratio, size = _size(flow, factor, aspect_ratio, width, height)
    if vae_tiling and factor == 1:
        raise UsageError("vae_tiling needs a model with an autoencoder; this one makes pixels.")
    denoise = model.defaults.denoise if denoise is None else denoise
    sample = _sample_options(model, flow, sampling)
    clip = resolve_clip(model, flow, frames, fps, extend, given_frames or 0)
    if clip:
        sample = clip_options(model, sample, clip["frames"], given_frames or 0, sampling)
    elif sample.window is not None:
        raise UsageError("window is for clips; this is a picture. Give frames, or leave it out.")
    return Settings(
        prompts=prompts,
        seeds=seeds,
        width=size[0],
        height=size[1],
        aspect_ratio=ratio,
        sample=sample,
        vae_tiling=bool(vae_tiling),
        negative_prompt=_negative(negative_prompt, flow, sample.guidance),
        **_denoising(flow, denoise, noise_std, denoiser),
        **clip,
    )


def _sample_options(model: ModelConfig, flow: FlowConfig, given: dict[str, Any]) -> SampleOptions:
    """The sampling options, with the model's defaults for those that were not given."""
    known = {former: f.name for f in SampleOptions.asked() for former in f.metadata["former"]}
    known |= {f.name: f.name for f in SampleOptions.asked()}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *_OTHER_OPTIONS], 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"generate has no option {name!r}.{hint}")
        if value is not None:
            if known[name] in values:
                raise UsageError(f"{name} and {known[name]} are the same option; give it once.")
            values[known[name]] = value
    conditional = bool(flow.text_channels or flow.num_classes)
    if values.get("guidance") and not conditional:
        raise UsageError("guidance needs a prompt or a class; this model is unconditional.")
    values.setdefault("guidance", model.defaults.guidance if conditional else 0.0)
    values.setdefault("sampler", model.defaults.sampler)
    if values["sampler"] == AUTO and model.defaults.tolerance is not None:
        values.setdefault("tolerance", model.defaults.tolerance)
    if values["sampler"] == "sequential":
        for name in ("max_sweeps", "tolerance", "block_size"):
            if name in values:
                raise UsageError(
                    f"{name} is for samplers that solve tokens in parallel; the sequential sampler "
                    "computes every token once. Leave it out."
                )
    if "windows" in values:
        values["windows"] = tuple(values["windows"])
    values["guidance"] = float(values["guidance"])
    return SampleOptions(**values)  # checks the values


def _negative(prompt: str | None, flow: FlowConfig, guidance: float) -> str:
    if not prompt:
        return ""
    if not flow.text_channels:
        raise UsageError("negative_prompt needs a model with text; this model has none.")
    if not guidance:
        raise UsageError("negative_prompt has an effect with guidance only, and guidance is 0.")
    return prompt


def sizes(flow: FlowConfig, factor: int) -> dict[str, tuple[int, int]]:
    """Aspect ratio "w:h" -> (width, height) in pixels, for all sizes of the model. ``factor``:
    pixels per latent cell along one side."""
    unit = factor * flow.patch_size
    ratios = ASPECT_RATIOS if flow.mix_aspect else ("1:1",)
    return {ratio: image_size(ratio, flow.grid_size * unit, unit) for ratio in ratios}


def _random_ratio(
    flow: FlowConfig, factor: int, width: int | None, height: int | None, seed: int
) -> str:
    """One of the model's aspect ratios, chosen by the seed."""
    known = list(sizes(flow, factor))
    if len(known) == 1:
        raise UsageError(f"aspect_ratio is 'random', but this model makes {known[0]} only.")
    if width is not None or height is not None:
        raise UsageError("aspect_ratio 'random' chooses the size; leave width and height out.")
    return random.Random(seed).choice(known)


def _size(
    flow: FlowConfig, factor: int, ratio: str | None, width: int | None, height: int | None
) -> tuple[str, tuple[int, int]]:
    known = sizes(flow, factor)
    listing = ", ".join(f"{r} ({w}x{h})" for r, (w, h) in known.items())
    if width is None and height is None:
        ratio = "1:1" if ratio is None else ratio
        if ratio not in known:
            raise UsageError(f"aspect_ratio is {ratio!r}; this model makes {listing}.")
        return ratio, known[ratio]
    fits = [
        r
        for r, (w, h) in known.items()
        if width in (None, w) and height in (None, h) and ratio in (None, r)
    ]
    if not fits:
        asked = {"width": width, "height": height, "aspect_ratio": ratio}
        given = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        raise UsageError(f"This model makes no picture of {given}; it makes {listing}.")
    return fits[0], known[fits[0]]


def _prompts(prompt: Any, num_images: int, flow: FlowConfig) -> tuple[str, ...]:
    if isinstance(num_images, bool) or num_images != int(num_images) or num_images < 1:
        raise UsageError(f"num_images is {num_images}; expected a whole number of 1 or more.")
    several = isinstance(prompt, Sequence) and not isinstance(prompt, str)
    given = list(prompt) if several else [prompt]
    if len(given) * num_images > MAX_PICTURES:
        raise UsageError(
            f"{len(given) * num_images} pictures in one batch are too many; at most "
            f"{MAX_PICTURES} are allowed."
        )
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
    """One seed per picture: those in a list, else seed, seed + 1, ... for each prompt."""
    if isinstance(seed, Sequence):
        if len(seed) != pictures:
            raise UsageError(f"{len(seed)} seeds for {pictures} pictures; give one per picture.")
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
            raise UsageError("noise_std and denoiser have no effect without denoising.")
        return {"denoise": False, "noise_std": None, "denoiser": None}
    if method is None:
        method = "learned" if learned else "score"
    if method not in ("score", "learned"):
        raise UsageError(f"denoiser is {method!r}; expected 'score' or 'learned'.")
    if method == "learned" and not learned:
        raise UsageError("This model has no learned denoiser; use 'score'.")
    if method == "learned" and noise_std is not None:
        raise UsageError("A learned denoiser has its own noise level; leave noise_std out.")
    if noise_std is not None and not 0 <= noise_std < math.inf:
        raise UsageError(f"noise_std is {noise_std}; expected 0 or more.")
    return {"denoise": True, "noise_std": noise_std, "denoiser": method}
