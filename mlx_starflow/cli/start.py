"""Drawing from a given picture: its noise, moved towards random noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..editing.vary import encode_pictures, varied
from ..pipeline import Pipeline
from .console import Console
from .picture_options import Fit, take_picture

STRENGTH = 0.2  # default of ``vary`` and ``generate --image``


@dataclass(frozen=True)
class StartPicture:
    """A picture to start from."""

    path: Path
    strength: float  # 0: the denoised picture; 1: independent of the picture
    fit: Fit = Fit.refuse

    @property
    def record(self) -> dict[str, Any]:
        """The record of it that is stored in the new pictures."""
        return {"varied": {"source": str(self.path), "strength": self.strength}}

    def noise(
        self,
        pipe: Pipeline,
        prompts: tuple[str | None, ...],
        seeds: tuple[int, ...],
        options: dict[str, Any],
        console: Console,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The noise (B, h, w, c) for a batch, and the options of ``Pipeline.generate`` for it.

        Noise of the model's training level, from the first seed, is added to the picture, which is
        then encoded exactly with the first prompt and the sampling options. The encoding is moved
        towards the noise of each seed.
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
