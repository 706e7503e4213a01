"""The result of ``generate``."""

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
    """The pictures of a batch, with their latents, noise and settings."""

    images: list[Image.Image]
    # (B, h, w, c), for clips (B, N, h, w, c), float32:
    latents: mx.array  # the flow's sample before denoising
    denoised: mx.array  # the latents that were decoded
    noise: mx.array  # the noise that the sample was made from
    settings: Settings
    reports: tuple[BlockReport, ...]  # one per block, from the deep block to the shallow ones
    warnings: tuple[str, ...]
    metadata: dict[str, Any]  # settings and facts about the whole call, as values for JSON
    filmed: tuple[np.ndarray, ...] = ()  # clips, whose first frames are ``images``

    @property
    def clips(self) -> list[np.ndarray]:
        """The clips (M, H, W, 3) uint8; a picture is a clip of one frame."""
        if self.filmed:
            return list(self.filmed)
        return [np.asarray(image.convert("RGB"))[None] for image in self.images]

    def metadata_of(self, index: int) -> dict[str, Any]:
        """The settings to store in one picture: ``metadata`` with the picture's prompt and seed,
        and those of the batch."""
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
        """A PNG for notebooks: the picture, or a contact sheet of all pictures."""
        content = BytesIO()
        shown = self.images[0] if len(self.images) == 1 else contact_sheet(self.images)
        shown.save(content, format="PNG")
        return content.getvalue()

    def __repr__(self) -> str:
        """Number and size of the pictures, prompts and seeds; not the arrays."""
        s = self.settings
        return (
            f"Result({len(self.images)} of {s.width}x{s.height}, prompts={list(s.prompts)}, "
            f"seeds={list(s.seeds)})"
        )

    def save(self, index: int, path: str | Path, overwrite: bool = True) -> Path:
        """Write one picture with its settings stored in it, as PNG, JPEG or WebP by the suffix.
        With overwrite=False an existing file is kept, and a free name is taken. A clip is written
        as .mp4, .gif, .webp or .png (animated), or as a folder of pictures, and never over a file.
        Returns the path that was written. Errors: ImageError."""
        if self.filmed:
            metadata = self.metadata_of(index)
            return save_clip(self.filmed[index], Path(path), self.settings.fps, metadata)
        return save_picture(self.images[index], path, self.metadata_of(index), overwrite)
