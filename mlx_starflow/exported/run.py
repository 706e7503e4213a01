"""``load`` and ``Exported``: pictures and scores by the functions of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from ..device.first_stream import imported_functions, make_first_stream
from ..errors import UsageError
from ..pictures.arrays import to_pictures
from . import stepwise
from .calls import Calls
from .manifest import read_manifest
from .prompts import Prompts


@dataclass(frozen=True)
class Drawn:
    """The result of ``Exported.generate``."""

    images: list[Image.Image]
    pixels: mx.array  # (B, H, W, C) in about [-1, 1]
    latents: mx.array  # (B, h, w, c) before denoising
    # How exact the tokens are, see ``stepwise.residual``; None: an export as one function.
    residual: float | None = None


def load(directory: str | Path) -> Exported:
    """An export, to be run from Python.

    Nothing is run before version, device and checksums have been compared. The result may be used
    in any thread, by one at a time, if this (or ``sf.load``) was called before anything else in the
    process used MLX; otherwise only in the thread that was the first to use it. Errors:
    ModelNotFoundError, ConfigError.
    """
    make_first_stream()
    return Exported(Path(directory), read_manifest(Path(directory)))


class Exported:
    """The functions of an export, and the loops around them. Made by ``load``."""

    def __init__(self, directory: Path, data: dict[str, Any]) -> None:
        self.directory, self.data = directory, data
        self.calls = Calls(directory, data["functions"])
        self.prompts = Prompts(directory, data, self.calls)

    @imported_functions()
    def generate(
        self, noise: mx.array | np.ndarray, prompt: str | Sequence[str] | None = None
    ) -> Drawn:
        """Pictures from standard normal noise (B, h, w, c) and a prompt, or one for every picture.
        Errors: UsageError for an export without pictures, for other shapes, and in a thread that
        cannot use it (see ``load``); TextError."""
        noise, context = self._given(noise, prompt)
        if "picture" in self.calls:
            pixels, latents = self.calls("picture", {**context, "noise": noise})
            worst = None
        else:
            latents, worst = stepwise.sample(self.calls, self.data, noise, context)
            clean = stepwise.denoised(self.calls, self.data, latents, context)
            pixels = stepwise.decoded(self.calls, self.data, clean)
        mx.eval(pixels, latents)
        return Drawn(to_pictures(pixels), pixels, latents, worst)

    @imported_functions()
    def score(
        self, x: mx.array | np.ndarray, prompt: str | Sequence[str] | None = None
    ) -> mx.array:
        """log p(x | prompt) in nats (B,), of x (B, h, w, c) as the flow models it: a latent, or a
        picture of a model of pixels, with the noise of training. Errors: UsageError, TextError."""
        x, context = self._given(x, prompt)
        log_prob = self.calls("score", {**context, "latent": x})[0]
        mx.eval(log_prob)
        return log_prob

    @imported_functions()
    def encode(
        self, x: mx.array | np.ndarray, prompt: str | Sequence[str] | None = None
    ) -> mx.array:
        """The noise from which the model draws x (B, h, w, c), with the guidance of the export."""
        x, context = self._given(x, prompt)
        (noise,) = self.calls("encode", {**context, "latent": x})
        mx.eval(noise)
        return noise

    def _given(
        self, x: mx.array | np.ndarray, prompt: str | Sequence[str] | None
    ) -> tuple[mx.array, dict[str, mx.array]]:
        x = mx.array(x) if isinstance(x, np.ndarray) else x
        batch = self.data["noise"]["shape"][0]
        listed = prompt is not None and not isinstance(prompt, str)
        prompts = [str(p) for p in prompt] if listed else [str(prompt or "")] * batch  # type: ignore[union-attr]
        if len(prompts) != batch:
            raise UsageError(f"{len(prompts)} prompts for {batch} pictures; give one for each.")
        return x, self.prompts.context(prompts)
