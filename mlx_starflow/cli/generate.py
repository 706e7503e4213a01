"""``mlx-starflow generate``: its flags, and the job made from them (see ``drawing``)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx

from ..errors import UsageError
from ..generation.stored import StoredSettings
from ..pictures.metadata import read_metadata
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
from .drawing_split import run_where_asked
from .flags import Sampling
from .job import Job
from .membership import ranks
from .options import OUTPUT, WHAT, option
from .outputs import DEFAULT
from .picture_options import Fit, FitOption
from .rank_options import RankFlags, SplitBy, SplitOption
from .repeat import refuse_other_commands
from .request import batches, content_of, given_noise, merged, replayed
from .results import show
from .resume import check_resume
from .start import STRENGTH, Start
from .viewer import show_files

EPILOG = """\b
Examples:
  mlx-starflow generate "a fox in snow" --seed 7 --output fox.png
  mlx-starflow generate "a red circle" --seed 1 2 3 --grid --output circle.png
  mlx-starflow generate "a fox" --num-images 4 --guidance 2
  mlx-starflow generate --prompt-file prompts.txt --model my-model --json
  mlx-starflow generate "a cat in snow" --image fox.png 0.4
  mlx-starflow generate -C fox.png --output again.png   (exactly the same picture again)
"""

NumImages = Annotated[
    int | None,
    option("--num-images", panel=WHAT, metavar="N", min=1, help="Pictures per prompt and seed, "
            "drawn as one batch with the seeds S, S+1, ..."),
]  # fmt: skip
BestOf = Annotated[
    int | None,
    option("--best-of", panel=WHAT, metavar="N", min=2, help="Draw N pictures as one batch (seeds "
            "S, S+1, ...) and keep the one with the largest log p(x | prompt) - log p(x | no "
            "prompt). All scores are stored in the picture."),
]  # fmt: skip
ImageFile = Annotated[
    Path | None,
    option("--image", "--image-path", panel=WHAT, metavar="FILE [S]", help="Start from a picture. "
            "Its noise is moved towards that of the seed by the strength S, as in vary."),
]  # fmt: skip
Strength = Annotated[
    float | None,
    option("--image-strength", panel=WHAT, metavar="S", min=0.0, max=1.0, help="How far to go "
            f"from --image: 0 keeps the picture, 1 ignores it. Default: {STRENGTH}."),
]  # fmt: skip
Grid = Annotated[
    bool, option("--grid", panel=OUTPUT, help="Also save a contact sheet of all pictures, _grid.")
]
Stepwise = Annotated[
    Path | None,
    option("--stepwise-image-output-dir", panel=OUTPUT, metavar="DIR", help="Also save the picture "
            "after each block, and a strip of all, in this directory."),
]  # fmt: skip
Uncertainty = Annotated[
    bool,
    option("--uncertainty", panel=OUTPUT, help="Also save maps of the standard deviation and the "
            "surprise of every token, _uncertainty, and add numbers to --json. They do not say "
            "whether a picture is good (docs/likelihood.md)."),
]  # fmt: skip
SaveLatents = Annotated[
    Path | None,
    option("--save-latents", panel=OUTPUT, metavar="FILE", help="Also save the latents as .npy, "
            "or latents, denoised latents and noise as .safetensors."),
]  # fmt: skip
Sidecar = Annotated[
    bool | None,
    option("--metadata/--no-metadata", "--make-conf/--no-exif", panel=OUTPUT,
            help="Store the settings beside the picture too, as .json; or nowhere. Default: in "
            "the picture only."),
]  # fmt: skip
Config = Annotated[
    Path | None,
    option("--config-from-metadata", "-C", "--config-from-conf", panel=OUTPUT, metavar="FILE",
            help="Draw a picture again from the settings in it or in its .json. Other flags take "
            "precedence."),
]  # fmt: skip


Resume = Annotated[
    bool,
    option("--resume", panel=OUTPUT, help="Go on with a job that was ended: leave out the pictures "
            "that are there already. Needs the same flags, and --seed."),
]  # fmt: skip


def generate(
    prompt: Prompt = None,
    prompt_option: PromptOption = None,
    prompt_file: PromptFile = None,
    seed: o.Seed = None,
    auto_seeds: AutoSeeds = None,
    num_images: NumImages = None,
    best_of: BestOf = None,
    aspect_ratio: AspectRatio = None,
    width: Width = None,
    height: Height = None,
    negative_prompt: Negative = None,
    image: ImageFile = None,
    image_strength: Strength = None,
    fit: FitOption = Fit.refuse,
    noise: Noise = None,
    *,
    sampling: Sampling,
    denoise: Denoise = None,
    noise_std: NoiseStd = None,
    denoiser: DenoiserName = None,
    output: o.Output = None,
    grid: Grid = False,
    stepwise_image_output_dir: Stepwise = None,
    save_latents: SaveLatents = None,
    uncertainty: Uncertainty = False,
    metadata: Sidecar = None,
    config_from_metadata: Config = None,
    resume: Resume = False,
    open_: o.Open = False,
    choice: o.ModelChoice,
    low_ram: o.LowRam = False,
    cache_limit_gb: o.CacheLimit = None,
    vae_tiling: Tiling = None,
    where: RankFlags,
    split: SplitOption = SplitBy.pictures,
    messages: o.Messages,
    verbose: o.Verbose = False,
) -> None:
    """Draw pictures from a prompt.

    The paths of the pictures go to standard output, one per line; progress and messages go to
    standard error. All settings are stored in the picture; -C draws it again from them.
    """
    began = time.perf_counter()
    where.start()
    stored = _stored(config_from_metadata) if config_from_metadata else None
    group = ranks()
    # Rank 0 hands the prompts out; the file need not be on the other machines.
    listed = prompt_file if group is None or group.rank == 0 else None
    prompts = prompts_of(prompt, prompt_option, listed)
    given = {
        **sampling.given(),
        "denoise": denoise, "noise_std": noise_std, "denoiser": denoiser and denoiser.value,
        "aspect_ratio": aspect_ratio, "width": width, "height": height,
        "negative_prompt": negative_prompt, "vae_tiling": vae_tiling,
    }  # fmt: skip
    if best_of and num_images:
        raise UsageError("--best-of sets the number of pictures; leave --num-images out.")
    num_images = best_of or num_images
    seeds = all_seeds(seed)
    overruled = bool(seeds or auto_seeds or num_images)
    start = given_noise(noise, None if stored is None or overruled or image else stored.noise)
    if start is not None and stored is None:
        num_images = num_images or len(start)
    changed = overruled or bool(prompts) or any(v is not None for v in given.values())
    job = Job(
        model=choice.model,
        dtype=choice.type_name,
        quantize=choice.recipe,
        low_ram=low_ram,
        batches=batches(prompts, seeds, auto_seeds, num_images or 1, stored),
        options=merged(given, stored),
        output=output or Path(DEFAULT),
        adapters=choice.adapters,
        noise=start,
        noise_file=str(noise or image or ""),
        start=_start(image, image_strength, fit, given, noise),
        save_latents=save_latents,
        stepwise=stepwise_image_output_dir,
        grid=grid,
        embed=metadata is not False,
        sidecar=metadata is True,
        best_of=best_of is not None,
        resume=resume,
        uncertainty=uncertainty,
        random_seeds=not seeds and (stored is None or auto_seeds is not None),
        swallowed=() if prompts or stored else next((s for s in seed or () if len(s) > 1), ()),
    )
    if stored is not None:
        job = replayed(job, stored, changed, str(config_from_metadata))
    if cache_limit_gb is not None:
        mx.set_cache_limit(int(cache_limit_gb * 2**30))
    console = Console(messages.quiet, verbose)
    if resume:
        check_resume(job)
    report = run_where_asked(job, console, group, split)
    show(report.to_dict(time.perf_counter() - began), messages.json_)
    if open_:
        show_files([r["path"] for r in report.records], console)


def _start(
    image: Path | None, strength: float | None, fit: Fit, given: dict[str, Any], noise: Path | None
) -> Start | None:
    """The picture to start from, or None. Errors: UsageError for flags that contradict it."""
    if image is None:
        if strength is not None or fit is not Fit.refuse:
            raise UsageError("--image-strength and --fit need --image FILE.")
        return None
    size = [f"--{k.replace('_', '-')}" for k in ("aspect_ratio", "width", "height") if given[k]]
    if size or noise:
        raise UsageError(
            f"--image determines the {'size' if size else 'noise'}; leave out "
            f"{', '.join(size or ['--noise'])}."
        )
    return Start(image, STRENGTH if strength is None else strength, fit)


def _stored(file: Path) -> StoredSettings:
    """The settings in a picture or its .json file. Errors: UsageError, ImageError."""
    data = read_metadata(file)
    refuse_other_commands(data, str(file))
    with content_of(file):
        return StoredSettings.from_dict(data, str(file))
