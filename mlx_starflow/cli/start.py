"""Drawing from a given picture or clip: its noise, moved towards random noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..editing.inputs import Source, window_options
from ..editing.vary import encode_pictures, varied
from ..errors import UsageError
from ..files.fields import Fields
from ..generation.length import clips_of
from ..generation.noise_file import noise_record
from ..generation.stored import StoredSettings
from ..pipeline import Pipeline
from .console import Console
from .picture_options import Fit, take_picture, take_source

STRENGTH = 0.2  # default of ``vary`` and ``generate --image``


@dataclass(frozen=True)
class Start:
    """A picture or clip to start from."""

    path: Path
    strength: float  # 0: the denoised picture; 1: independent of the picture
    fit: Fit = Fit.refuse
    clip: bool = False  # the file is a clip
    expected: str | None = None  # SHA-256 of the noise, for a clip that is made again

    @property
    def record(self) -> dict[str, Any]:
        """The record of it that is stored in the new pictures or clips."""
        about: dict[str, Any] = {"source": str(self.path), "strength": self.strength}
        return {"varied": about | ({"fit": self.fit.value} if self.clip else {})}

    @classmethod
    def of_clip(cls, stored: StoredSettings | None, where: str) -> Start | None:
        """The clip from which the clip with these settings was made, if its noise is too large to
        be stored. Errors: UsageError naming ``where``, the key and the value."""
        if stored is None or not stored.varied or not stored.noise or "data" in stored.noise:
            return None
        about = Fields(stored.varied, where, UsageError, "varied")
        fit = about.text("fit", Fit.refuse.value, one_of=tuple(Fit))
        return cls(
            Path(about.text("source", most=4096)),
            about.number("strength", low=0.0, high=1.0),
            Fit(fit),
            True,
            Fields(stored.noise, where, UsageError, "noise").text("sha256", most=64),
        )

    def noise(
        self,
        pipe: Pipeline,
        prompts: tuple[str | None, ...],
        seeds: tuple[int, ...],
        options: dict[str, Any],
        console: Console,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The noise (B, h, w, c) or (B, N, h, w, c) for a batch, and the options of
        ``Pipeline.generate`` for it.

        Noise of the model's training level, from the first seed, is added to the picture, which is
        then encoded exactly with the first prompt and the sampling options. The encoding is moved
        towards the noise of each seed.
        """
        if self.clip:
            source = take_source(pipe, self.path, self.fit, console)
        else:
            picture, ratio = take_picture(pipe, self.path, self.fit, console)
            source = Source((picture.image,), ratio, str(self.path))
        prompt = prompts[0] or ""
        guidance = options.get("guidance")
        if guidance is None:
            guidance = pipe.config.defaults.guidance if prompt else 0.0
        options = {**options, "guidance": guidance, "aspect_ratio": source.aspect_ratio}
        options |= _of_clip(pipe, source, options)
        same = ("guide", "annealed", "attention_temperature", "guidance_blocks", "window",
                "context_frames")  # fmt: skip
        made = encode_pictures(
            pipe,
            [source.content],
            [prompt],
            guidance,
            source.aspect_ratio,
            noise_seed=seeds[0],
            negative=options.get("negative_prompt") or "",
            fps=options["fps"] if source.is_clip else 0,
            **{name: options[name] for name in same if name in options},
        )
        noise = np.array(varied(made.z[0], self.strength, seeds))
        if self.expected and noise_record("", noise)["sha256"] != self.expected:
            console.say(
                f"Warning: {self.path} has changed, or this device rounds differently: its noise "
                "is not the one that the clip was made from, so the clip will not be the same."
            )
        return noise, options


def _of_clip(pipe: Pipeline, source: Source, options: dict[str, Any]) -> dict[str, Any]:
    """The options of ``Pipeline.generate`` that follow from the length of a clip."""
    if not source.is_clip:
        return window_options(pipe, source, options)  # {}, or an error for options of clips
    clips = clips_of(pipe.config, pipe.flow_config)
    length = {"frames": len(source.frames), "fps": options.get("fps") or clips.fps[0]}
    return length | window_options(pipe, source, options)
