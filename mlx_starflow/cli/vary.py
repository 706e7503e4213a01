"""``mlx-starflow vary``: variations of a picture or a clip."""

from __future__ import annotations

import time
from typing import Annotated, Any

from ..errors import UsageError
from ..generation.settings import MAX_PICTURES
from ..pictures.clips import is_clip
from . import options as o
from .drawing_either import draw_either
from .flags import ClipWindow
from .job import Batch
from .options import HOW, WHAT, option
from .picture_options import (
    Fit,
    FitOption,
    Fps,
    Guidance,
    Output,
    PictureOrClip,
    PromptOption,
    check_of_clips,
)
from .request import merged
from .start import STRENGTH, Start

EPILOG = """\b
Examples:
  mlx-starflow vary fox.png --strength 0.3 --prompt "a fox in snow"
  mlx-starflow vary fox.png --strength 0.5 --num-images 4 --output foxes.png
  mlx-starflow vary fox.png --strength 0.1 --prompt "a cat in snow"
  mlx-starflow vary fox.mp4 -m my-model --strength 0.3 --prompt "a fox walks" --output other.mp4
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
    image: PictureOrClip,
    strength: Strength = STRENGTH,
    prompt: PromptOption = "",
    seed: Seed = 0,
    num_images: NumImages = 1,
    guidance: Guidance = None,
    fit: FitOption = Fit.refuse,
    fps: Fps = None,
    output: Output = None,
    *,
    windows: ClipWindow,
    open_: o.Open = False,
    choice: o.ModelChoice,
    messages: o.Messages,
    verbose: o.Verbose = False,
) -> None:
    """Draw variations of a picture or clip: its noise, moved towards random noise, is decoded.

    The model's training noise is added to the picture, and it is encoded exactly with the prompt
    and guidance. Describe the picture with --prompt, so that its content is kept.
    """
    began = time.perf_counter()
    if num_images > MAX_PICTURES:
        raise UsageError(f"--num-images is {num_images}; expected at most {MAX_PICTURES}.")
    clip, window = is_clip(image), windows.given()
    check_of_clips(clip, image, fps, window)
    given = {"denoise": True, "guidance": guidance, "fps": fps, **window}
    work: dict[str, Any] = {
        "model": choice.model,
        "dtype": choice.type_name,
        "quantize": choice.recipe,
        "low_ram": False,
        "batches": [Batch((prompt,) * num_images, tuple(range(seed, seed + num_images)))],
        "options": merged(given, None),
        "adapters": choice.adapters,
        "noise_file": str(image),
        "start": Start(image, strength, fit, clip),
    }
    draw_either(clip, work, output, began, messages, verbose, open_)
