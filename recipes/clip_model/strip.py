"""Make the README's pictures: a strip of frames of some clips, and an animation of all of them.

python -m recipes.clip_model.strip BUNDLE [--output docs/images/clips.webp]
                                          [--animation docs/images/clips-moving.webp]

Prompt i is drawn with seed i; none is left out. ``--paintings`` shows painted clips instead, for
which no bundle is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_starflow.pictures.animation import save_animation
from mlx_starflow.pictures.sheet import contact_sheet

from ..default_model.painter import Scene
from .painting import paint_clip
from .scenes import Clip

CLIPS = {
    "a fox walks to the left in snow": Clip(Scene("fox", "snow"), "left"),
    "a boat sails to the right on the sea": Clip(Scene("boat", "sea"), "right"),
    "a penguin on the beach, day into night": Clip(Scene("penguin", "beach"), "darker"),
    "a rabbit jumps in a meadow": Clip(Scene("rabbit", "meadow"), "jump"),
    "a balloon rises in the mountains": Clip(Scene("balloon", "mountains"), "rise"),
    "an elephant comes nearer in the desert": Clip(Scene("elephant", "desert"), "nearer"),
    "a red car drives to the right in the city": Clip(Scene("car", "city", "red"), "right"),
    "a rocket flies up in the night sky": Clip(Scene("rocket", "night sky", time="night"), "rise"),
}


def _enlarged(sheet: Image.Image, scale: int) -> Image.Image:
    size = sheet.width * scale, sheet.height * scale
    return sheet.resize(size, Image.Resampling.LANCZOS)


def strip(clips: list[np.ndarray], columns: int = 6, scale: int = 2) -> Image.Image:
    """A row of evenly spaced frames for each clip (M, H, W, 3) uint8."""
    frames = [
        Image.fromarray(clip[i])
        for clip in clips
        for i in np.linspace(0, len(clip) - 1, columns).round().astype(int)
    ]
    return _enlarged(contact_sheet(frames, columns=columns), scale)


def animation(clips: list[np.ndarray], columns: int = 4, scale: int = 2) -> list[Image.Image]:
    """The frames of an animation that shows all clips side by side."""
    frames = []
    for moment in zip(*clips, strict=True):
        sheet = contact_sheet([Image.fromarray(frame) for frame in moment], columns=columns)
        frames.append(_enlarged(sheet, scale))
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--paintings", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("docs/images/clips.webp"))
    parser.add_argument("--animation", type=Path, default=Path("docs/images/clips-moving.webp"))
    parser.add_argument("--frames", type=int, default=17)
    arguments = parser.parse_args()
    if arguments.paintings:
        clips = [paint_clip(clip, frames=arguments.frames) for clip in CLIPS.values()]
    elif arguments.bundle is None:
        parser.error("give a bundle, or --paintings")
    else:
        import mlx_starflow as sf

        with sf.load(arguments.bundle) as pipe:
            clips = [
                pipe.generate(prompt, seed=seed, frames=arguments.frames).clips[0]
                for seed, prompt in enumerate(CLIPS)
            ]
    strip(clips).save(arguments.output)
    print(arguments.output)
    print(save_animation(animation(clips), arguments.animation, fps=8))


if __name__ == "__main__":
    main()
