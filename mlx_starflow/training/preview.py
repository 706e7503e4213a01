"""Pictures from fixed seeds during a training: what it has learned so far, to look at."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from ..exact.denoise import denoise
from ..exact.noise import seeded_noise
from ..generation.components import Components
from ..generation.draw import decode
from ..pictures.arrays import to_pictures
from ..pictures.metadata import save_picture
from ..pictures.sheet import contact_sheet
from ..sampling import invert
from .material import Material
from .trainer import Trainer

FOLDER = "previews"


class Previews:
    """Draws picture i of prompt i with seed i, every time the same."""

    def __init__(
        self, components: Components, material: Material, prompts: tuple[str, ...], number: int
    ) -> None:
        """``prompts`` are among those of the material; (): its first captions."""
        known = prompts or material.rows.prompts or ("",)
        self.prompts = tuple(known[i % len(known)] for i in range(number))
        self._components, self._material = components, material

    def draw(self, trainer: Trainer, directory: Path) -> Path | None:
        """A sheet of pictures by the trainer's flow, previews/0000050.png; None where none are
        asked for."""
        if not self.prompts:
            return None
        latents = self._material.train.latents
        noise = seeded_noise(latents.shape[1:], range(len(self.prompts)))
        rows = self._material.rows
        guidance = self._components.config.defaults.guidance if rows.rows is not None else 0.0
        with trainer.showing():
            flow = trainer.trained.flow
            context = rows.for_sampling(self.prompts, guidance)
            x = invert(flow, noise, context, guidance=guidance, sampler="sequential")
            x = denoise(flow, x, rows.own(self.prompts))
        mx.eval(x)
        x = mx.where(mx.isfinite(x), x, 0.0)  # a bad step is to be seen, not an end
        pictures = to_pictures(decode(self._components, x))
        path = directory / FOLDER / f"{trainer.step:07d}.png"
        about = {"command": "train", "prompts": list(self.prompts), "step": trainer.step}
        return save_picture(contact_sheet(pictures, len(pictures)), path, about)
