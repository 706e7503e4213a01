"""Options and small steps that the commands about given pictures share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..editing.inputs import prepared
from ..pictures.read import Picture
from ..pipeline import Pipeline, load
from .console import Console
from .fetch import Fetching
from .options import HOW, OUTPUT, WHAT, Bits, DType, _option


class Fit(StrEnum):
    refuse = "refuse"
    crop = "crop"
    stretch = "stretch"


FitOption = Annotated[
    Fit,
    _option("--fit", panel=WHAT, help="What to do with a picture that is not of the model's size: "
            "refuse it, crop around its centre and scale, or stretch. Default: refuse."),
]  # fmt: skip
Image = Annotated[
    Path,
    typer.Argument(metavar="IMAGE", rich_help_panel=WHAT, help="A picture.", show_default=False),
]
PromptOption = Annotated[
    str, _option("--prompt", panel=WHAT, help="What the picture shows. Default: nothing said.")
]
NoiseSeed = Annotated[
    int, _option("--seed", panel=WHAT, metavar="N", min=0, help="Seed of the noise. Default: 0.")
]
Guidance = Annotated[
    float | None,
    _option("--guidance", panel=HOW, metavar="W", min=0.0,
            help="Weight of classifier-free guidance, 0 for none. Default: the model's."),
]  # fmt: skip
OutputPicture = Annotated[
    Path | None,
    _option(
        "--output", "-o", panel=OUTPUT, metavar="FILE",
        help="The picture: .png, .jpg or .webp. Files are never overwritten (_1, _2 is added). "
        "Default: image.png.",
    ),
]  # fmt: skip


def open_model(
    model: str | None, dtype: DType | None, quantize: Bits | None, console: Console
) -> Pipeline:
    """The model that the shared options name; what has to be downloaded first is shown."""
    bits = quantize.recipe if quantize else None
    return load(model, dtype.value if dtype else None, bits, tell=Fetching(console))


def take_picture(pipe: Pipeline, path: Path, fit: Fit, console: Console) -> tuple[Picture, str]:
    """A given picture at a size of the model and its aspect ratio; says what was done to it."""
    picture, ratio = prepared(pipe, path, fit.value)
    for note in picture.notes:
        console.say(f"Note: {path} was {note}.")
    return picture, ratio
