"""Redraw a part of a picture and keep the rest. ``exact.infill`` explains the limits."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from PIL import Image, ImageFilter

from ..config import FlowConfig
from ..device.wired import wired_steps
from ..errors import UsageError
from ..exact.infill import infill_steps
from ..exact.noise import seeded_noise
from ..exact.scoring import surprise
from ..pictures.arrays import from_picture, to_pictures
from ..pipeline import Pipeline
from ..sampling import BlockResult, SampleOptions, Step
from .inputs import latents_of
from .vary import finished, with_noise

FEATHER = 2.0  # pixels over which the new part fades in, inside the mask


@dataclass(frozen=True)
class EditRequest:
    """The picture to change, the part to redraw, and how."""

    picture: Image.Image  # of one of the model's sizes
    mask: np.ndarray  # (height, width) bools, True = redraw
    prompt: str
    seeds: tuple[int, ...]  # one result per seed, drawn as one batch
    guidance: float
    aspect_ratio: str = "1:1"
    denoise: bool = True
    paste: bool = True  # outside the mask, use the pixels of the given picture


@dataclass(frozen=True)
class Edited:
    """The edited pictures and their likelihoods."""

    images: list[Image.Image]
    latents: mx.array  # (B, h, w, c) samples: kept latents with noise, and new ones
    tokens: np.ndarray  # (h / p, w / p) bools: the tokens that were drawn
    log_p: np.ndarray  # (B,) nats, log p(latents | prompt): kept and new parts together

    @property
    def best(self) -> int:
        """Index of the picture whose new part fits the kept part best, by ``log_p``. The kept
        latents and their noise are the same in all pictures, so differences of ``log_p`` are
        exact differences of log p(new part | whole kept part, prompt)."""
        return int(self.log_p.argmax())


def edit(pipe: Pipeline, request: EditRequest) -> Edited:
    """Redraw the masked part of a picture. Errors: UsageError, NumericsError."""
    work = edit_steps(pipe, request)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


@wired_steps
def edit_steps(pipe: Pipeline, request: EditRequest) -> Generator[Step | BlockResult, None, Edited]:
    """``edit`` as a generator of events, like ``invert_steps``; returns the result."""
    flow, count = pipe.flow, len(request.seeds)
    clean = latents_of(pipe, [request.picture])
    cell = request.picture.height // clean.shape[1] * flow.config.patch_size
    tokens = token_mask(request.mask, cell)
    # The same noise for the kept part of all pictures, so that their likelihoods are comparable.
    kept = mx.repeat(with_noise(pipe, clean, seed=0), count, axis=0)
    z = seeded_noise(clean.shape[1:], request.seeds)
    prompts = [request.prompt] * count
    rows = pipe.prompt_rows(prompts, request.aspect_ratio)
    context, own = rows.for_sampling(prompts, request.guidance), rows.own(prompts)
    options = SampleOptions(guidance=request.guidance, sampler="sequential")
    x = kept
    for event in infill_steps(flow, kept, z, mx.array(tokens), context, options):
        if isinstance(event, BlockResult):
            x = event.x
        yield event
    log_p = -surprise(flow, x, None if own is None else own[:1])[0].sum(axis=-1)
    images = _pictures(pipe, request, clean, x, tokens, own)
    return Edited(images, x, tokens, log_p)


def token_mask(mask: np.ndarray, cell: int) -> np.ndarray:
    """Mask of pixels (H, W) -> mask of tokens (H / cell, W / cell): True if any pixel of the token
    is. ``cell``: pixels per token along one side. Errors: UsageError for an empty mask."""
    if not mask.any():
        raise UsageError("The mask is empty: it has no white (or transparent) pixels.")
    rows, columns = mask.shape[0] // cell, mask.shape[1] // cell
    return np.asarray(mask.reshape(rows, cell, columns, cell).any(axis=(1, 3)))


@dataclass(frozen=True)
class Visibility:
    """On which kept tokens the new tokens depend, because of the deep block's order."""

    from_the_top: bool  # True: rows are drawn from top to bottom, False: from bottom to top
    kept: int  # number of kept tokens
    seen_by_all: int  # of these, those before every new token
    seen_by_none: int  # of these, those after every new token


def visibility(config: FlowConfig, tokens: np.ndarray) -> Visibility:
    """The ``Visibility`` for a mask of tokens (rows, columns), True = new, with at least one new
    token."""
    flip = config.blocks[-1].flip
    order = tokens.reshape(-1)[::-1] if flip else tokens.reshape(-1)
    new = np.flatnonzero(order)
    before, after = int(new[0]), int(order.size - 1 - new[-1])
    return Visibility(not flip, int((~order).sum()), before, after)


def _pictures(
    pipe: Pipeline,
    request: EditRequest,
    clean: mx.array,
    x: mx.array,
    tokens: np.ndarray,
    own: mx.array | None,
) -> list[Image.Image]:
    """Denoise and decode. Kept latents and pixels are replaced by those of the given picture."""
    if request.denoise:
        x, _ = finished(pipe, x, own, True)
        p = pipe.flow.config.patch_size
        new = mx.array(tokens.repeat(p, axis=0).repeat(p, axis=1))[None, :, :, None]
        x = mx.where(new, x, clean)
    _, images = finished(pipe, x, own, False)
    return [pasted(request.picture, i, request.mask) for i in images] if request.paste else images


def pasted(below: Image.Image, above: Image.Image, mask: np.ndarray) -> Image.Image:
    """``above`` where the mask (H, W) is True, fading in over FEATHER pixels inside it; elsewhere
    the unchanged pixels of ``below``."""
    soft = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(FEATHER))
    weight = np.clip(2 * np.asarray(soft, np.float32) / 255 - 1, 0, 1) * mask
    # At the border of the picture nothing fades: the blur extends the mask's border pixels.
    channels = 1 if above.mode == "L" else 3
    a, b = (np.array(from_picture(i, channels))[0] for i in (above, below))
    mixed = b + (a - b) * weight[:, :, None]
    return to_pictures(mx.array(mixed[None]))[0]
