"""``mlx-starflow interpolate``: pictures or clips between two of them, two seeds or prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..editing.inputs import clip_window
from ..editing.interpolate import Ends, Frame, encoded_ends, frames_between, seeded_ends
from ..errors import UsageError
from ..files.counted import counted
from ..generation.length import MOST_FPS, clips_of
from ..pictures.animation import check_animation, save_animation
from ..pictures.clips import check_clip_path, is_clip, save_clip
from ..pictures.metadata import save_picture
from ..pictures.sheet import contact_sheet
from ..pipeline import Pipeline
from ..version import __version__
from . import options as o
from .arguments import Seeds, all_seeds, read_seeds
from .console import Console
from .failures import NOTHING, interruptible
from .filming import suffix_of_clips
from .flags import ClipWindow
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_file, check_output
from .picture_options import Fit, FitOption, Guidance, open_model, take_source
from .prompts import tell_prompts
from .results import warn_not_converged
from .viewer import show_files

EPILOG = """\b
Examples:
  mlx-starflow interpolate fox.png cat.png --frames 8 --output strip.png
  mlx-starflow interpolate --seed 1 2 --prompt "a fox in snow" --animation fox.webp
  mlx-starflow interpolate --seed 7 --prompt "a fox in snow" --prompt "a cat in snow" \\
      --frames 12 --animation morph.gif
  mlx-starflow interpolate fox.mp4 cat.mp4 -m my-model --frames 4 --output row.mp4
  mlx-starflow interpolate --seed 1 2 --clip-frames 17 -m my-model --prompt "a fox walks"
"""
NAME = "interpolation"  # default of --output, without the suffix

Pictures = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[A B]", rich_help_panel=WHAT, show_default=False,
                   help="Two pictures; for a model of clips, two pictures or clips. Without them, "
                   "give one or two seeds."),
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
        help="Number of pictures or clips, both ends included. Default: 8.",
    ),
]
ClipFrames = Annotated[
    int | None,
    option("--clip-frames", panel=WHAT, metavar="M", min=1, help="With --seed: draw clips of so "
            "many frames each, instead of pictures."),
]  # fmt: skip
Denoise = Annotated[
    bool | None,
    option("--denoise/--no-denoise", panel=HOW, help="Remove the model's training noise. Default: "
            "yes between seeds; no between pictures, which are encoded without it."),
]  # fmt: skip
Strip = Annotated[
    Path | None,
    option("--output", "-o", panel=OUTPUT, metavar="FILE", help="All pictures in a row: .png, .jpg "
            "or .webp; all clips side by side: .mp4, .gif, .webp, .png or a folder. Default: "
            "interpolation.png; for clips .mp4, or .webp without the extra [video]."),
]  # fmt: skip
Animation = Annotated[
    Path | None,
    option("--animation", panel=OUTPUT, metavar="FILE", help="Also save all of them one after "
            "another, as an animation: .gif, .webp, or .png (animated PNG); clips also as .mp4."),
]  # fmt: skip
Rate = Annotated[
    float | None,
    option("--fps", panel=OUTPUT, metavar="F", help="Frames per second. Default: 8; for clips the "
            "model's, which is also told the rate."),
]  # fmt: skip
Bounce = Annotated[
    bool, option("--bounce", panel=OUTPUT, help="Play the animation forwards, then backwards.")
]


@dataclass(frozen=True)
class _Asked:
    """What is drawn, as the flags have it."""

    files: list[Path]
    seeds: list[int]
    prompts: list[str]
    clips: bool
    clip_frames: int | None
    fps: float | None
    window: dict[str, Any]
    fit: Fit


def interpolate(
    pictures: Pictures = None,
    seed: SeedOption = None,
    prompt: Prompts = None,
    frames: Frames = 8,
    clip_frames: ClipFrames = None,
    guidance: Guidance = None,
    denoise: Denoise = None,
    fit: FitOption = Fit.refuse,
    output: Strip = None,
    animation: Animation = None,
    fps: Rate = None,
    bounce: Bounce = False,
    open_: o.Open = False,
    *,
    windows: ClipWindow,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Draw pictures or clips between two of them, between two seeds or between two prompts."""
    console = Console(messages.quiet)
    files = pictures or []
    clips = clip_frames is not None or any(is_clip(path) for path in files)
    asked = _Asked(
        files, all_seeds(seed), prompt or [""], clips, clip_frames, fps, windows.given(), fit
    )
    output = output or Path(NAME).with_suffix(suffix_of_clips() if clips else ".png")
    _check_outputs(output, animation, asked)
    _check(asked)
    drawn: list[Frame] = []
    what = "clip" if clips else "frame"
    with (
        interruptible(lambda: f"{len(drawn)} of {counted(frames, what)} drawn, {NOTHING}"),
        open_model(choice, console) as pipe,
    ):
        tell_prompts(pipe, asked.prompts, console)
        if guidance is None:
            guidance = 0.0 if files else pipe.config.defaults.guidance
        ends, length = _ends(pipe, asked, guidance, console)
        remove = not files if denoise is None else denoise
        adapters = {"adapters": pipe.adapters} if pipe.adapters else {}
        try:
            for frame in frames_between(pipe, ends, frames, remove):
                drawn.append(frame)
                console.draw(f"{what}s", f"{len(drawn)}/{frames}", len(drawn) / frames, None)
        finally:
            console.clear()
    warn_not_converged(
        [(f.converged, f.residual) for f in drawn], console, "Try a lower --guidance."
    )
    about = {
        "generator": "mlx-starflow", "version": __version__, "command": "interpolate",
        "pictures": [str(p) for p in files], "seeds": asked.seeds, "prompts": asked.prompts,
        "frames": frames, "guidance": guidance, "denoise": remove,
        "model": choice.model or "default", **adapters, **length,
    }  # fmt: skip
    paths = _save(drawn, output, animation, 8.0 if fps is None else fps, bounce, about)
    if messages.json_:
        typer.echo(json.dumps({"paths": paths, **about}))
    else:
        typer.echo("\n".join(paths))
    if open_:
        show_files(paths[-1:], console)


def _check_outputs(output: Path, animation: Path | None, asked: _Asked) -> None:
    """Check the paths and the rate before any work. Errors: UsageError, ImageError."""
    if asked.clips:
        for path in (output, animation):
            if path is not None:
                check_clip_path(path)
                check_file(path)
        rate = asked.fps
        if rate is not None and (rate != int(rate) or not 1 <= rate <= MOST_FPS):
            raise UsageError(f"--fps is {rate}; for clips a whole number from 1 to {MOST_FPS}.")
        return
    if asked.window:
        raise UsageError("--window and --context are for clips; these are pictures.")
    check_output(output)
    if animation is not None:
        check_animation(animation, 8.0 if asked.fps is None else asked.fps)
        check_file(animation)


def _check(asked: _Asked) -> None:
    """Raise a UsageError for flags that contradict each other."""
    if len(asked.prompts) > 2:
        raise UsageError(f"{len(asked.prompts)} prompts are given; expected at most two.")
    if len(asked.files) not in (0, 2):
        raise UsageError(f"Expected two pictures, or none and --seed; found {len(asked.files)}.")
    if asked.files and asked.seeds:
        raise UsageError("Give two pictures or seeds, not both.")
    if asked.files and asked.clip_frames is not None:
        raise UsageError("--clip-frames belongs to --seed; the clips have their own length.")


def _ends(
    pipe: Pipeline, asked: _Asked, guidance: float, console: Console
) -> tuple[Ends, dict[str, Any]]:
    """The two ends, and what the settings say of the length of clips. Errors: UsageError."""
    frames, ratio, sources = None, "1:1", []
    if asked.files:
        sources = [take_source(pipe, path, asked.fit, console) for path in asked.files]
        one, two = sources
        if one.aspect_ratio != two.aspect_ratio:
            raise UsageError(
                f"The pictures have different shapes ({one.aspect_ratio} and {two.aspect_ratio}); "
                "crop one."
            )
        if len(one.frames) != len(two.frames):
            raise UsageError(
                f"{one.path} has {counted(len(one.frames), 'frame')} and {two.path} "
                f"{len(two.frames)}; cut the longer one."
            )
        frames, ratio = len(one.frames) if one.is_clip else None, one.aspect_ratio
    elif asked.clips:
        clips = clips_of(pipe.config, pipe.flow_config)
        frames = clips.shown_frames(clips.latent_frames(asked.clip_frames or 1))
        frames = None if frames == 1 else frames
    window = clip_window(pipe, frames, asked.window, "the result")
    rate, length = 0, {}
    if asked.clips:
        shown = int(asked.fps or clips_of(pipe.config, pipe.flow_config).fps[0])
        length = {"clip_frames": frames or 1, "fps": shown, **window}
        rate = 0 if frames is None else shown  # one latent frame is a picture for the model
    if sources:
        both = [source.content for source in sources]
        return encoded_ends(pipe, both, asked.prompts, guidance, ratio, rate, **window), length
    seeds = _two_seeds(asked.seeds, asked.prompts)
    return seeded_ends(pipe, seeds, asked.prompts, guidance, frames, rate, **window), length


def _save(
    drawn: list[Frame],
    output: Path,
    animation: Path | None,
    fps: float,
    bounce: bool,
    about: dict[str, Any],
) -> list[str]:
    """Save the strip and the animation. Returns their paths."""
    if "clip_frames" not in about:
        images = [frame.image for frame in drawn]
        strip = contact_sheet(images, columns=len(images))
        paths = [save_picture(strip, output, about, overwrite=False)]
        if animation is not None:
            more = {"fps": fps, "bounce": bounce}
            paths.append(save_animation(images, animation, fps, bounce, about | more))
        return [str(path) for path in paths]
    clips = [_frames(frame) for frame in drawn]
    paths = [save_clip(np.concatenate(clips, axis=2), output, about["fps"], about)]
    if animation is not None:
        row = np.concatenate(clips)
        row = np.concatenate([row, row[-2:0:-1]]) if bounce else row
        paths.append(save_clip(row, animation, about["fps"], about | {"bounce": bounce}))
    return [str(path) for path in paths]


def _frames(drawn: Frame) -> np.ndarray:
    """(M, H, W, 3) uint8; M is 1 for a picture."""
    return np.asarray(drawn.image.convert("RGB"))[None] if drawn.clip is None else drawn.clip


def _two_seeds(seeds: list[int], prompts: list[str]) -> list[int]:
    if not seeds or len(seeds) > 2:
        raise UsageError("Give two pictures, or --seed with one or two seeds.")
    if len(seeds) == 1 and len(prompts) == 1:
        raise UsageError(
            "With one seed and one prompt all pictures are the same; give two seeds or two prompts."
        )
    return [seeds[0], seeds[-1]]
