"""Options and steps that are shared by the commands for given pictures and clips."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..editing.inputs import Source, prepared, source_of
from ..errors import UsageError
from ..flow.split import Split
from ..pictures.read import Picture
from ..pipeline import Pipeline, load
from .console import Console
from .fetch import Fetching
from .options import HOW, OUTPUT, WHAT, ModelChoice, option


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
PictureOrClip = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", rich_help_panel=WHAT, show_default=False,
        help="A picture; for a model of clips also a clip: .mp4, an animation, or a folder of "
        "pictures.",
    ),
]  # fmt: skip
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


Output = Annotated[
    Path | None,
    option("--output", "-o", panel=OUTPUT, metavar="FILE", help="File name of the picture: .png, "
            ".jpg or .webp; of the clip: .mp4 (needs the extra [video]), .gif, .webp or .png, or "
            "without a suffix a folder of PNGs. Never overwritten (_1, _2 is added). Default: "
            "image.png; for clips clip.mp4, or clip.webp without the extra."),
]  # fmt: skip
Fps = Annotated[
    int | None,
    option("--fps", panel=WHAT, metavar="F", min=1, help="Clips: frames per second, as the model "
            "is told and as written to the file. Default: the model's."),
]  # fmt: skip


def check_of_clips(is_clip: bool, path: Path, fps: int | None, window: dict[str, Any]) -> None:
    """Raise a UsageError for flags of clips if the file is a picture."""
    given = window if fps is None else {"fps": fps, **window}
    flags = {"fps": "--fps", "window": "--window", "context_frames": "--context"}
    if given and not is_clip:
        named = " and ".join(flags[name] for name in given)
        raise UsageError(f"{named}: only for clips, but {path} is a picture.")


def take_source(pipe: Pipeline, path: Path, fit: Fit, console: Console) -> Source:
    """Read a picture or clip at one of the model's sizes. Shows which changes were made to it.
    Errors: ImageError, UsageError."""
    source = source_of(pipe, path, fit.value)
    for note in source.notes:
        console.say(f"Note: {path} was {note}.")
    return source


def take_picture(pipe: Pipeline, path: Path, fit: Fit, console: Console) -> tuple[Picture, str]:
    """Read a picture. Returns it at one of the model's sizes, and its aspect ratio. Shows which
    changes were made to it. Errors: ImageError."""
    picture, ratio = prepared(pipe, path, fit.value)
    for note in picture.notes:
        console.say(f"Note: {path} was {note}.")
    return picture, ratio
