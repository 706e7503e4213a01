"""Options and steps that are shared by the commands for given pictures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..editing.inputs import prepared
from ..flow.split import Split
from ..pictures.read import Picture
from ..pipeline import Pipeline, load
from .console import Console
from .fetch import Fetching
from .options import HOW, WHAT, ModelChoice, option


class Fit(StrEnum):
    """Values of --fit."""

    refuse = "refuse"
    crop = "crop"
    stretch = "stretch"


FitOption = Annotated[
    Fit,
    option("--fit", panel=WHAT, help="What to do with a picture of another size than the model's: "
            "refuse it, crop it around the centre and scale it, or stretch it. Default: refuse."),
]  # fmt: skip
Image = Annotated[
    Path,
    typer.Argument(metavar="IMAGE", rich_help_panel=WHAT, help="A picture.", show_default=False),
]
Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...", rich_help_panel=WHAT, help="Pictures, or folders of pictures.",
        show_default=False,
    ),
]  # fmt: skip
PromptOption = Annotated[
    str, option("--prompt", panel=WHAT, help="What the picture shows. Default: no prompt.")
]
Guidance = Annotated[
    float | None,
    option("--guidance", panel=HOW, metavar="W", min=0.0,
            help="Weight of classifier-free guidance, 0 for none. Default: the model's."),
]  # fmt: skip


def open_model(choice: ModelChoice, console: Console, split: Split | None = None) -> Pipeline:
    """Load the model and the adapters that the flags select; a download shows its progress.
    ``split``: how ranks divide it."""
    return load(
        choice.model, choice.type_name, choice.recipe, tell=Fetching(console),
        adapters=choice.adapters, split=split,
    )  # fmt: skip


def take_picture(pipe: Pipeline, path: Path, fit: Fit, console: Console) -> tuple[Picture, str]:
    """Read a picture. Returns it at one of the model's sizes, and its aspect ratio. Shows which
    changes were made to it. Errors: ImageError."""
    picture, ratio = prepared(pipe, path, fit.value)
    for note in picture.notes:
        console.say(f"Note: {path} was {note}.")
    return picture, ratio
