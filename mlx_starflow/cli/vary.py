"""``mlx-starflow vary``: variations of a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from ..errors import UsageError
from ..generation.settings import MAX_PICTURES
from . import options as o
from .console import Console
from .drawing import run
from .job import Batch, Job
from .options import HOW, WHAT, option
from .outputs import DEFAULT
from .picture_options import (
    Fit,
    FitOption,
    Guidance,
    Image,
    PromptOption,
)
from .results import show
from .start import STRENGTH, StartPicture
from .viewer import show_files

EPILOG = """\b
Examples:
  mlx-starflow vary fox.png --strength 0.3 --prompt "a fox in snow"
  mlx-starflow vary fox.png --strength 0.5 --num-images 4 --output foxes.png
  mlx-starflow vary fox.png --strength 0.1 --prompt "a cat in snow"
"""

Strength = Annotated[
    float,
    option("--strength", panel=HOW, metavar="S", min=0.0, max=1.0, help="How far the picture's "
            "noise is moved towards random noise: 0 keeps the picture, 1 ignores it. Default: "
            f"{STRENGTH}."),
]  # fmt: skip
NumImages = Annotated[
    int,
    option(
        "--num-images", panel=WHAT, metavar="N", min=1, help="Number of variations. Default: 1."
    ),
]
Seed = Annotated[
    int,
    option("--seed", panel=WHAT, metavar="N", min=0, help="Seed of the first variation's noise; "
            "the others get N+1, ... Default: 0."),
]  # fmt: skip


def vary(
    image: Image,
    strength: Strength = STRENGTH,
    prompt: PromptOption = "",
    seed: Seed = 0,
    num_images: NumImages = 1,
    guidance: Guidance = None,
    fit: FitOption = Fit.refuse,
    output: o.Output = None,
    *,
    open_: o.Open = False,
    choice: o.ModelChoice,
    messages: o.Messages,
    verbose: o.Verbose = False,
) -> None:
    """Draw variations of a picture: its noise, moved towards random noise, is decoded again.

    The model's training noise is added to the picture, and it is encoded exactly with the prompt
    and guidance. Describe the picture with --prompt, so that its content is kept.
    """
    began = time.perf_counter()
    console = Console(messages.quiet, verbose)
    if num_images > MAX_PICTURES:
        raise UsageError(f"--num-images is {num_images}; expected at most {MAX_PICTURES}.")
    options = {"denoise": True} if guidance is None else {"denoise": True, "guidance": guidance}
    job = Job(
        model=choice.model,
        dtype=choice.type_name,
        quantize=choice.recipe,
        low_ram=False,
        batches=[Batch((prompt,) * num_images, tuple(range(seed, seed + num_images)))],
        options=options,
        output=output or Path(DEFAULT),
        adapters=choice.adapters,
        noise_file=str(image),
        image=StartPicture(image, strength, fit),
    )
    report = run(job, console)
    show(report.to_dict(time.perf_counter() - began), messages.json_)
    if open_:
        show_files([r["path"] for r in report.records], console)
