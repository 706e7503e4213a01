"""Preview pictures, drawn from fixed seeds during a training."""

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
from ..sampling import BlockResult, SampleOptions, invert_steps
from ..version import __version__
from .material import Material
from .trainer import Trainer

FOLDER = "previews"


class Previews:
    """Draws a sheet of pictures: picture i has prompt i and seed i at every evaluation."""

    def __init__(
        self, components: Components, material: Material, prompts: tuple[str, ...], number: int
    ) -> None:
        """``prompts``: must be among the prompts of the material; (): its first captions.
        ``number``: pictures on a sheet; prompts are repeated if there are fewer."""
        known = prompts or material.rows.prompts or ("",)
        self.prompts = tuple(known[i % len(known)] for i in range(number))
        self._components, self._material = components, material

    def draw(self, trainer: Trainer, directory: Path) -> Path | None:
        """Draw a sheet of pictures with the trainer's flow and save it as previews/STEP.png, with
        seven digits; returns its path, or None if no pictures are to be drawn."""
        if not self.prompts:
            return None
        latents = self._material.train.latents
        noise = seeded_noise(latents.shape[1:], range(len(self.prompts)))
        rows = self._material.rows
        guidance = self._components.config.defaults.guidance if rows.rows is not None else 0.0
        with trainer.showing():
            flow = trainer.trained.flow
            context = rows.for_sampling(self.prompts, guidance)
            options = SampleOptions(guidance=guidance, sampler="sequential")
            x = noise
            for event in invert_steps(flow, noise, context, options):
                trainer.together.step()
                x = event.x if isinstance(event, BlockResult) else x
            x = denoise(flow, x, rows.own(self.prompts))
        mx.eval(x)
        x = mx.where(mx.isfinite(x), x, 0.0)  # draw bad values, do not stop the training
        pictures = to_pictures(decode(self._components, x))
        path = directory / FOLDER / f"{trainer.step:07d}.png"
        about = {
            "generator": "mlx-starflow", "version": __version__, "command": "train",
            "prompts": list(self.prompts), "seeds": [*range(len(self.prompts))],
            "step": trainer.step,
        }  # fmt: skip
        return save_picture(contact_sheet(pictures, len(pictures)), path, about)
