"""``mlx-starflow interpolate``: pictures between two pictures, seeds or prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import PIL.Image
import typer

from ..editing.interpolate import Ends, encoded_ends, frames_between, seeded_ends
from ..errors import UsageError
from ..files.counted import counted
from ..pictures.animation import check_animation, save_animation
from ..pictures.metadata import save_picture
from ..pictures.sheet import contact_sheet
from ..pipeline import Pipeline
from ..version import __version__
from . import options as o
from .arguments import Seeds, all_seeds, read_seeds
from .console import Console
from .failures import NOTHING, interruptible
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_file, check_output
from .picture_options import Fit, FitOption, Guidance, open_model, take_picture
from .prompts import tell_prompts
from .results import warn_not_converged
from .viewer import show_files

EPILOG = """\b
Examples:
  mlx-starflow interpolate fox.png cat.png --frames 8 --output strip.png
  mlx-starflow interpolate --seed 1 2 --prompt "a fox in snow" --animation fox.webp
  mlx-starflow interpolate --seed 7 --prompt "a fox in snow" --prompt "a cat in snow" \\
      --frames 12 --animation morph.gif
"""

Pictures = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[A B]", rich_help_panel=WHAT, show_default=False,
                   help="Two pictures. Without them, give one or two seeds."),
]  # fmt: skip
SeedOption = Annotated[
    list[Seeds] | None,
    option("--seed", panel=WHAT, metavar="N [N]", parser=read_seeds, help="Seeds of the noise "
            "at the two ends: --seed 1 2. With one seed only the prompt changes."),
]  # fmt: skip
Prompts = Annotated[
    list[str] | None,
    option("--prompt", panel=WHAT, metavar="TEXT", help="What the pictures show. Given twice: go "
            "from the first prompt to the second."),
]  # fmt: skip
Frames = Annotated[
    int,
    option(
        "--frames",
        panel=WHAT,
        metavar="N",
        min=2,
        help="Number of pictures, both ends included. Default: 8.",
    ),
]
Denoise = Annotated[
    bool | None,
    option("--denoise/--no-denoise", panel=HOW, help="Remove the model's training noise. Default: "
            "yes between seeds; no between pictures, which are encoded without it."),
]  # fmt: skip
Strip = Annotated[
    Path,
    option("--output", "-o", panel=OUTPUT, metavar="FILE", help="All frames in a row: .png, .jpg "
            "or .webp. Default: interpolation.png."),
]  # fmt: skip
Animation = Annotated[
    Path | None,
    option("--animation", panel=OUTPUT, metavar="FILE", help="Also save an animation: .gif, .webp, "
            "or .png (animated PNG)."),
]  # fmt: skip
Rate = Annotated[
    float, option("--fps", panel=OUTPUT, metavar="F", help="Frames per second. Default: 8.")
]
Bounce = Annotated[
    bool, option("--bounce", panel=OUTPUT, help="Play the animation forwards, then backwards.")
]


def interpolate(
    pictures: Pictures = None,
    seed: SeedOption = None,
    prompt: Prompts = None,
    frames: Frames = 8,
    guidance: Guidance = None,
    denoise: Denoise = None,
    fit: FitOption = Fit.refuse,
    output: Strip = Path("interpolation.png"),
    animation: Animation = None,
    fps: Rate = 8.0,
    bounce: Bounce = False,
    open_: o.Open = False,
    *,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Draw pictures between two pictures, two seeds or two prompts."""
    console = Console(messages.quiet)
    check_output(output)
    if animation is not None:
        check_animation(animation, fps)
        check_file(animation)
    pictures, prompts, seeds = pictures or [], prompt or [""], all_seeds(seed)
    if len(prompts) > 2:
        raise UsageError(f"{len(prompts)} prompts are given; expected at most two.")
    if len(pictures) not in (0, 2):
        raise UsageError(f"Expected two pictures, or none and --seed; found {len(pictures)}.")
    if pictures and seeds:
        raise UsageError("Give two pictures or seeds, not both.")
    drawn: list[PIL.Image.Image] = []
    accuracy: list[tuple[bool, float | None]] = []
    with (
        interruptible(lambda: f"{len(drawn)} of {counted(frames, 'frame')} drawn, {NOTHING}"),
        open_model(choice, console) as pipe,
    ):
        tell_prompts(pipe, prompts, console)
        if guidance is None:
            guidance = 0.0 if pictures else pipe.config.defaults.guidance
        if pictures:
            ends = _picture_ends(pipe, pictures, prompts, guidance, fit, console)
        else:
            ends = seeded_ends(pipe, _two_seeds(seeds, prompts), prompts, guidance)
        remove = not pictures if denoise is None else denoise
        adapters = {"adapters": pipe.adapters} if pipe.adapters else {}
        try:
            for frame in frames_between(pipe, ends, frames, remove):
                drawn.append(frame.image)
                accuracy.append((frame.converged, frame.residual))
                console.draw("frames", f"{len(drawn)}/{frames}", len(drawn) / frames, None)
        finally:
            console.clear()
    warn_not_converged(accuracy, console, "Try a lower --guidance.")
    about = {
        "generator": "mlx-starflow", "version": __version__, "command": "interpolate",
        "pictures": [str(p) for p in pictures], "seeds": seeds, "prompts": prompts,
        "frames": frames, "guidance": guidance, "denoise": remove,
        "model": choice.model or "default", **adapters,
    }  # fmt: skip
    strip = contact_sheet(drawn, columns=len(drawn))
    paths = [str(save_picture(strip, output, about, overwrite=False))]
    if animation is not None:
        more = {"fps": fps, "bounce": bounce}
        paths.append(str(save_animation(drawn, animation, fps, bounce, about | more)))
    if messages.json_:
        typer.echo(json.dumps({"paths": paths, **about}))
    else:
        typer.echo("\n".join(paths))
    if open_:
        show_files(paths[-1:], console)


def _picture_ends(
    pipe: Pipeline,
    paths: list[Path],
    prompts: list[str],
    guidance: float,
    fit: Fit,
    console: Console,
) -> Ends:
    taken = [take_picture(pipe, path, fit, console) for path in paths]
    if taken[0][1] != taken[1][1]:
        raise UsageError(
            f"The pictures have different shapes ({taken[0][1]} and {taken[1][1]}); crop one."
        )
    return encoded_ends(pipe, [p.image for p, _ in taken], prompts, guidance, taken[0][1])


def _two_seeds(seeds: list[int], prompts: list[str]) -> list[int]:
    if not seeds or len(seeds) > 2:
        raise UsageError("Give two pictures, or --seed with one or two seeds.")
    if len(seeds) == 1 and len(prompts) == 1:
        raise UsageError(
            "With one seed and one prompt all pictures are the same; give two seeds or two prompts."
        )
    return [seeds[0], seeds[-1]]
