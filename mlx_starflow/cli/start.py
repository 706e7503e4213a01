"""Pictures that start from a given one: its noise, turned towards fresh noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..editing.vary import encode_pictures, varied
from ..pipeline import Pipeline
from .console import Console
from .picture_options import Fit, take_picture

STRENGTH = 0.2  # how far ``vary`` and ``generate --image`` turn unless told otherwise


@dataclass(frozen=True)
class StartPicture:
    """A picture to start from."""

    path: Path
    strength: float  # 0: the picture as the model denoises it; 1: nothing is left of it
    fit: Fit = Fit.refuse

    @property
    def record(self) -> dict[str, Any]:
        """What is stored of it in the pictures that are made."""
        return {"varied": {"source": str(self.path), "strength": self.strength}}

    def noise(
        self,
        pipe: Pipeline,
        prompts: tuple[str | None, ...],
        seeds: tuple[int, ...],
        options: dict[str, Any],
        console: Console,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The noise (B, h, w, c) to start a batch from, and the options to draw it with.

        The picture gets the noise that the model was trained with, by the first seed, and is
        encoded exactly under the first prompt and the options of sampling; its noise is then
        turned towards that of every seed. ``options`` are those of ``Pipeline.generate``.
        """
        picture, ratio = take_picture(pipe, self.path, self.fit, console)
        prompt = prompts[0] or ""
        guidance = options.get("guidance")
        if guidance is None:
            guidance = pipe.config.defaults.guidance if prompt else 0.0
        same = ("guide", "annealed", "attention_temperature", "guidance_blocks")
        made = encode_pictures(
            pipe,
            [picture.image],
            [prompt],
            guidance,
            ratio,
            noise_seed=seeds[0],
            negative=options.get("negative_prompt") or "",
            **{name: options[name] for name in same if name in options},
        )
        noise = np.array(varied(made.z[0], self.strength, seeds))
        return noise, {**options, "guidance": guidance, "aspect_ratio": ratio}
