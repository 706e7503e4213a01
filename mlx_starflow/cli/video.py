"""The flags of ``mlx-starflow video``."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx

from ..errors import StarflowError, UsageError
from ..files.fields import Fields
from ..generation.stored import StoredSettings
from ..hub.known import CLIPS
from ..pictures.clips import clip_metadata
from . import options as o
from .arguments import all_seeds
from .console import Console
from .drawing_options import (
    AspectRatio,
    AutoSeeds,
    Denoise,
    DenoiserName,
    Height,
    Negative,
    Noise,
    NoiseStd,
    Prompt,
    PromptFile,
    PromptOption,
    Tiling,
    Width,
    prompts_of,
)
from .filming import COMMAND, Beginning, Filming, beginning, film
from .flags import ClipSampling
from .options import OUTPUT, WHAT, option
from .repeat import refuse_other_commands
from .request import batches, content_of, given_noise, merged, replayed
from .results import show
from .start import Start
from .viewer import show_files

EPILOG = """\b
Examples:
  mlx-starflow video "a fox walks in snow" --model starflow-v --output fox.mp4
  mlx-starflow video "a fox walks in snow" -m my-model --frames 17 --output fox.gif
  mlx-starflow video "it turns its head" -m my-model --image fox.png --seconds 5
  mlx-starflow video "it runs away" -m my-model --video fox.mp4 --frames 161 --context 8
  mlx-starflow video -C fox.mp4 --output again.mp4   (exactly the same clip)
"""

Frames = Annotated[
    int | None,
    option("--frames", panel=WHAT, metavar="M", min=1, help="Number of frames, rounded down to one "
            "that the autoencoder makes: 1, 5, 9, ... Default: that of the model's training."),
]  # fmt: skip
Seconds = Annotated[
    float | None,
    option("--seconds", panel=WHAT, metavar="S", min=0.0, help="Length of the clip, instead of "
            "--frames."),
]  # fmt: skip
Fps = Annotated[
    int | None,
    option("--fps", panel=WHAT, metavar="F", min=1, help="Frames per second, given to the model "
            "and stored in the file. Default: the model's."),
]  # fmt: skip
Image = Annotated[
    Path | None,
    option("--image", panel=WHAT, metavar="FILE", help="The picture that the clip begins with; it "
            "is resized to cover the clip's size and cropped around the centre."),
]  # fmt: skip
Video = Annotated[
    Path | None,
    option("--video", panel=WHAT, metavar="FILE", help="The clip that the new one begins with and "
            "continues: a file, or a folder of pictures."),
]  # fmt: skip
Extend = Annotated[
    bool | None,
    option("--extend-word/--no-extend-word", panel=WHAT, help="Put the word before the caption "
            "that marked continued clips in the model's training. Default: no."),
]  # fmt: skip
PreviewFrames = Annotated[
    Path | None,
    option("--preview-frames", panel=OUTPUT, metavar="DIR", help="Also save every frame as a PNG, "
            "as soon as it is decoded."),
]  # fmt: skip
Output = Annotated[
    Path | None,
    option("--output", "-o", panel=OUTPUT, metavar="FILE", help="File of the clip: .mp4 (needs the "
            "extra [video]), .gif, .webp or .png; without a suffix, a folder of PNGs. Files are "
            "never overwritten. Default: clip.mp4, or clip.webp without the extra."),
]  # fmt: skip
Metadata = Annotated[
    bool, option("--metadata/--no-metadata", panel=OUTPUT, help="Store the settings in the clip.")
]
Config = Annotated[
    Path | None,
    option("--config-from-metadata", "-C", panel=OUTPUT, metavar="FILE", help="Repeat the clip in "
            "this file. Other flags take precedence over the settings in it."),
]  # fmt: skip


def video(
    prompt: Prompt = None,
    prompt_option: PromptOption = None,
    prompt_file: PromptFile = None,
    seed: o.Seed = None,
    auto_seeds: AutoSeeds = None,
    frames: Frames = None,
    seconds: Seconds = None,
    fps: Fps = None,
    image: Image = None,
    video: Video = None,
    extend: Extend = None,
    aspect_ratio: AspectRatio = None,
    width: Width = None,
    height: Height = None,
    negative_prompt: Negative = None,
    noise: Noise = None,
    *,
    sampling: ClipSampling,
    denoise: Denoise = None,
    noise_std: NoiseStd = None,
    denoiser: DenoiserName = None,
    output: Output = None,
    preview_frames: PreviewFrames = None,
    metadata: Metadata = True,
    config_from_metadata: Config = None,
    open_: o.Open = False,
    choice: o.ModelChoice,
    low_ram: o.LowRam = False,
    cache_limit_gb: o.CacheLimit = None,
    vae_tiling: Tiling = None,
    messages: o.Messages,
    verbose: o.Verbose = False,
) -> None:
    """Make a clip from a prompt, a picture, or the start of a clip.

    The paths of the clips are written to standard output, one per line; progress and messages go to
    standard error. All settings are stored in the clip; -C draws it again from them.
    """
    began = time.perf_counter()
    if frames is not None and seconds is not None:
        raise UsageError("--frames and --seconds both give the length; give one of them.")
    stored, record = _stored(config_from_metadata)
    prompts = prompts_of(prompt, prompt_option, prompt_file)
    given = {
        **sampling.given(),
        "denoise": denoise, "noise_std": noise_std, "denoiser": denoiser and denoiser.value,
        "aspect_ratio": aspect_ratio, "width": width, "height": height, "frames": frames,
        "fps": fps, "extend": extend, "negative_prompt": negative_prompt,
        "vae_tiling": vae_tiling,
    }  # fmt: skip
    options = merged(given, stored)
    options.pop("given_frames", None)  # computed again from the given frames
    seeds = all_seeds(seed)
    overruled = stored is None or seeds or auto_seeds  # so that stored noise is not used
    start = None if overruled or noise else Start.of_clip(stored, str(config_from_metadata))
    changed = bool(overruled or prompts or any(v is not None for v in given.values()))
    if seconds is not None:
        options.pop("frames", None)
    console = Console(messages.quiet, verbose)
    work = Filming(
        model=choice.model,
        dtype=choice.type_name,
        quantize=choice.recipe,
        adapters=choice.adapters,
        low_ram=low_ram,
        batches=batches(prompts, seeds, auto_seeds, 1, stored),
        options=options,
        output=output,
        seconds=seconds,
        beginning=record if image is None and video is None else beginning(image, video),
        noise=given_noise(noise, None if overruled or start or not stored else stored.noise),
        noise_file=str(noise or ""),
        start=start,
        preview_frames=preview_frames,
        embed=metadata,
        random_seeds=not seeds and (stored is None or auto_seeds is not None),
    )
    if stored is not None:
        work = replayed(work, stored, changed, str(config_from_metadata))
    elif work.model is None:
        work = dataclasses.replace(work, model=CLIPS)
    if cache_limit_gb is not None:
        mx.set_cache_limit(int(cache_limit_gb * 2**30))
    report = film(work, console)
    show(report.to_dict(time.perf_counter() - began), messages.json_, of="clips")
    if open_:
        show_files([r["path"] for r in report.records], console)


def _stored(file: Path | None) -> tuple[StoredSettings | None, Beginning | None]:
    """The settings in a clip, and the picture or clip that it began with. Errors: UsageError for a
    file of another command; StarflowError if the file has no settings of a clip, or if the
    beginning no longer exists."""
    if file is None:
        return None, None
    data: dict[str, Any] = clip_metadata(file)
    if data.get("command") != COMMAND:
        refuse_other_commands(data, str(file), clips=True)
        raise StarflowError(
            f"{file} is not a clip of the video command. To repeat a picture, use: mlx-starflow "
            f"generate -C {file}"
        )
    with content_of(file):
        stored = StoredSettings.from_dict(data, str(file))
        given = Fields(data, str(file), UsageError).fields("given", None)
        record = None if given is None else Beginning.stored(given)
    return stored, record
