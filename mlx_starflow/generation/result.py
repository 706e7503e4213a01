"""What ``generate`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from ..pictures.clips import save_clip
from ..pictures.metadata import save_picture
from ..pictures.sheet import contact_sheet
from ..sampling import BlockReport
from .settings import Settings


@dataclass(frozen=True, repr=False)
class Result:
    """Finished pictures and everything that made them."""

    images: list[Image.Image]
    latents: mx.array  # (B, h, w, c) or (B, N, h, w, c) float32, the flow's sample, still noisy
    denoised: mx.array  # of this shape, what was decoded; latents if not denoised
    noise: mx.array  # of this shape, the noise it came from
    settings: Settings
    reports: tuple[BlockReport, ...]  # in the order of the work: the deep block first
    warnings: tuple[str, ...]
    metadata: dict[str, Any]  # JSON-able: every resolved setting, of the call as a whole
    filmed: tuple[np.ndarray, ...] = ()  # clips; then ``images`` are their first frames

    @property
    def clips(self) -> list[np.ndarray]:
        """Clips (M, H, W, 3) uint8; a picture is a clip of one frame."""
        if self.filmed:
            return list(self.filmed)
        return [np.asarray(image.convert("RGB"))[None] for image in self.images]

    def metadata_of(self, index: int) -> dict[str, Any]:
        """The settings of one picture: its own prompt and seed, and its place in the batch."""
        data = {k: v for k, v in self.metadata.items() if k not in ("prompts", "seeds")}
        own = {"prompt": self.settings.prompts[index], "seed": self.settings.seeds[index]}
        if len(self.images) > 1:
            own["batch"] = {
                "index": index,
                "prompts": list(self.settings.prompts),
                "seeds": list(self.settings.seeds),
            }
        return {**own, **data}

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the picture, or all of them on one."""
        content = BytesIO()
        shown = self.images[0] if len(self.images) == 1 else contact_sheet(self.images)
        shown.save(content, format="PNG")
        return content.getvalue()

    def __repr__(self) -> str:
        """The pictures and what asked for them, not their numbers."""
        s = self.settings
        return (
            f"Result({len(self.images)} of {s.width}x{s.height}, prompts={list(s.prompts)}, "
            f"seeds={list(s.seeds)})"
        )

    def save(self, index: int, path: str | Path, overwrite: bool = True) -> Path:
        """Write one picture (PNG, JPEG or WebP by suffix) with its settings inside it, or one clip
        (.mp4, .gif, .webp, .png, or a folder), never over a file."""
        if self.filmed:
            metadata = self.metadata_of(index)
            return save_clip(self.filmed[index], Path(path), self.settings.fps, metadata)
        return save_picture(self.images[index], path, self.metadata_of(index), overwrite)
