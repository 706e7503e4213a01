"""Flags that ``generate`` and ``video`` share: the prompt, the size, the noise, the denoising."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from . import options as o
from .options import HOW, MEMORY, WHAT, option
from .request import read_prompts

Prompt = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT",
        rich_help_panel=WHAT,
        help="What to draw: a text; for a model with classes, the name or number of a class.",
        show_default=False,
    ),
]
PromptOption = Annotated[
    str | None, option("--prompt", panel=WHAT, help="The same as the argument PROMPT.")
]
PromptFile = Annotated[
    Path | None,
    option("--prompt-file", panel=WHAT, metavar="FILE", help="A file with one prompt per line; - "
            "is standard input. The model is loaded once for all of them."),
]  # fmt: skip
AutoSeeds = Annotated[
    int | None,
    option("--auto-seeds", panel=WHAT, metavar="N", min=1, help="Use N random seeds."),
]
AspectRatio = Annotated[
    str | None,
    option("--aspect-ratio", panel=WHAT, metavar="W:H", help="Aspect ratio, for models with "
            "several; 'random' chooses one by the seed. Default: 1:1."),
]  # fmt: skip
Width = Annotated[
    int | None,
    option("--width", panel=WHAT, metavar="PIXELS", help="Width; one of the model's sizes."),
]
Height = Annotated[
    int | None,
    option("--height", panel=WHAT, metavar="PIXELS", help="Height; one of the model's sizes."),
]
Negative = Annotated[
    str | None,
    option("--negative-prompt", "--negative", panel=WHAT, metavar="TEXT", help="What the picture "
            "should not show: guidance leads away from it."),
]  # fmt: skip
Noise = Annotated[
    Path | None,
    option("--noise", panel=WHAT, metavar="FILE", help="Start from this noise (B, h, w, c) "
            'instead of the seed\'s: .npy, or .safetensors with an array "noise".'),
]  # fmt: skip
Denoise = Annotated[
    bool | None,
    option("--denoise/--no-denoise", panel=HOW, help="Remove the noise that was added in training "
            "from the picture, or keep it. Default: the model's."),
]  # fmt: skip
NoiseStd = Annotated[
    float | None,
    option("--noise-std", panel=HOW, metavar="S", help="Standard deviation of the noise that is "
            "removed. Default: the model's."),
]  # fmt: skip
DenoiserName = Annotated[
    o.Denoiser | None,
    option("--denoiser", panel=HOW, help="Denoise with the score of the flow, or with the learned "
            "network of the model. Default: the network if there is one."),
]  # fmt: skip
Tiling = Annotated[
    bool | None,
    option("--vae-tiling/--no-vae-tiling", panel=MEMORY, help="Decode in tiles, with less memory "
            "and small differences. Default: large pictures, and clips that fit only so."),
]  # fmt: skip


def prompts_of(argument: str | None, option: str | None, file: Path | None) -> list[str | None]:
    """The prompts of the flags. Errors: UsageError if they are given twice."""
    given = [p for p in (argument, option, file) if p is not None]
    if len(given) > 1:
        raise UsageError("Give the prompt once: as PROMPT, as --prompt or as --prompt-file.")
    if file is not None:
        return list(read_prompts(file))
    return [p for p in (argument, option) if p is not None]
