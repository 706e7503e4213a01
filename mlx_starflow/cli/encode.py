"""``mlx-starflow encode`` and ``decode``: pictures and clips to noise and back."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import typer

from ..editing.inputs import window_options
from ..editing.vary import encode_pictures
from ..errors import UsageError
from ..exact.encoding import round_trip_error
from ..files.fields import Fields
from ..generation.length import clips_of
from ..generation.noise_file import noise_settings, write_noise
from ..generation.stored import StoredSettings, read_stored_adapters
from ..hub.acquire import check_stored_model
from ..pictures.clips import is_clip
from . import options as o
from .console import Console
from .drawing_either import draw_either
from .drawing_split import run_where_asked
from .encode_ranks import encoding_together
from .failures import NOTHING, interruptible
from .flags import ClipWindow
from .job import Batch
from .membership import ranks
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_file
from .picture_options import (
    Fit,
    FitOption,
    Fps,
    PictureOrClip,
    PromptOption,
    check_of_clips,
    open_model,
    take_source,
)
from .picture_options import Output as Drawn
from .prompts import tell_prompts
from .rank_options import RankFlags, SplitBy, SplitOption, split_of
from .request import content_of, merged, noise_in, stored_adapters

ENCODE_EPILOG = """\b
Examples:
  mlx-starflow encode fox.png --output fox.safetensors
  mlx-starflow encode fox.png --prompt "a fox in snow" --guidance 2 --output fox.safetensors
  mlx-starflow decode fox.safetensors --output again.png
  mlx-starflow generate "a cat in snow" --noise fox.safetensors
  mlx-starflow encode fox.mp4 --model my-model --output fox.safetensors

Decoding returns the latents exactly, except for rounding. The picture then has the errors of the
model's autoencoder; a model of pixels returns the picture itself.
"""
DECODE_EPILOG = """\b
Examples:
  mlx-starflow decode fox.safetensors --output again.png
  mlx-starflow decode fox.safetensors --prompt "a cat in snow" --output cat.png
  mlx-starflow decode clip.safetensors --output again.mp4
"""
ROUND_TRIP = 1e-3  # largest error of decoding that passes without a warning

Output = Annotated[
    Path,
    option("--output", "-o", panel=OUTPUT, metavar="FILE", help="The .safetensors file for the "
            "noise. Never overwritten (_1, _2 is added). Default: noise.safetensors."),
]  # fmt: skip
EncodeGuidance = Annotated[
    float,
    option("--guidance", panel=HOW, metavar="W", min=0.0, help="Encode for decoding with this "
            "guidance. Default: 0, none."),
]  # fmt: skip
AddNoise = Annotated[
    int | None,
    option("--noise-seed", panel=HOW, metavar="N", min=0, help="Add the noise that the model was "
            "trained with before encoding, from this seed. The encoding is then more like random "
            "noise, and must be decoded with --denoise. Default: add no noise."),
]  # fmt: skip
Check = Annotated[
    bool,
    option("--check/--no-check", panel=OUTPUT, help="Decode the noise and report the largest "
            "error. Default: yes."),
]  # fmt: skip
NoiseFile = Annotated[
    Path,
    typer.Argument(metavar="NOISE", rich_help_panel=WHAT, show_default=False,
                   help='Written by encode, or any .npy or .safetensors with an array "noise".'),
]  # fmt: skip
Denoise = Annotated[
    bool | None,
    option("--denoise/--no-denoise", panel=HOW, help="Remove the model's training noise from the "
            "result. Default: only if encode added it."),
]  # fmt: skip
StoredPrompt = Annotated[
    str | None, option("--prompt", panel=WHAT, help="Default: the one it was encoded with.")
]
StoredGuidance = Annotated[
    float | None,
    option("--guidance", panel=HOW, metavar="W", min=0.0, help="Default: the one it was encoded "
            "with, else the model's."),
]  # fmt: skip


def encode(
    image: PictureOrClip,
    prompt: PromptOption = "",
    guidance: EncodeGuidance = 0.0,
    noise_seed: AddNoise = None,
    fit: FitOption = Fit.refuse,
    fps: Fps = None,
    check: Check = True,
    output: Output = Path("noise.safetensors"),
    *,
    windows: ClipWindow,
    where: RankFlags,
    split: SplitOption = SplitBy.pictures,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Turn a picture or clip into the noise from which the model would draw it.

    The encoding is exact, with guidance too, and takes one parallel pass. The file has the noise,
    the latents and the settings. Use it with decode, or with generate --noise and another prompt.
    """
    where.start()
    console, group = Console(messages.quiet), ranks()
    divided = split_of(split, group, "Encoding reads captions and null captions in one pass")
    if group is not None and divided is None:
        raise UsageError("encode takes one picture: several ranks need --split tensor.")
    if output.suffix != ".safetensors":
        raise UsageError(f"--output {output}: expected a name ending in .safetensors.")
    if group is None or group.rank == 0:
        check_file(output)
    check_of_clips(is_clip(image), image, fps, windows.given())
    with interruptible(lambda: NOTHING), open_model(choice, console, divided) as pipe:
        source = take_source(pipe, image, fit, console)
        ratio, window = source.aspect_ratio, window_options(pipe, source, windows.given())
        length = {}
        if source.is_clip:
            rate = fps or clips_of(pipe.config, pipe.flow_config).fps[0]
            length = {"frames": len(source.frames), "fps": rate}
        about = {"prompt": prompt, "guidance": guidance, "aspect_ratio": ratio,
                 "noise_seed": noise_seed, **length, **window}  # fmt: skip
        with encoding_together(group, pipe, source.digest, {**about, "check": check}) as step:
            tell_prompts(pipe, [prompt], console, ratio)
            made = encode_pictures(
                pipe, [source.content], [prompt], guidance, ratio, noise_seed,
                fps=length.get("fps", 0), **window,
            )  # fmt: skip
            settings: dict[str, Any] = {
                "source": str(image), **about, "model": choice.model or "default",
                "weights": pipe.fingerprint,
                **({"adapters": pipe.adapters} if pipe.adapters else {}),
            }  # fmt: skip
            if check:
                settings["round_trip_error"] = round_trip_error(
                    pipe.flow, made.x, made.z, made.context, step, guidance=guidance, **window
                )
                settings["largest_latent"] = mx.abs(made.x).max().item()
        rms = mx.sqrt(mx.mean(mx.square(made.z))).item()
        if group is not None and group.rank:
            return
        path = write_noise(output, settings, noise=made.z, latents=made.x)
    if check:
        if settings["round_trip_error"] > ROUND_TRIP * max(1.0, settings["largest_latent"]):
            what = "clip" if source.is_clip else "picture"
            console.say(
                f"Warning: for this {what}, which is unusual for the model, decoding magnifies "
                f"rounding errors. The noise is right, but the decoded {what} may differ."
            )
        console.say(
            f"Decoding returns the latents with an error of {settings['round_trip_error']:.1e} "
            f"(their largest number is {settings['largest_latent']:.2f})."
        )
    console.say(f"The root mean square of the noise is {rms:.3f}; that of random noise is 1.")
    typer.echo(json.dumps({"path": str(path), "rms": rms, **settings}) if messages.json_ else path)


def decode(
    noise: NoiseFile,
    prompt: StoredPrompt = None,
    guidance: StoredGuidance = None,
    denoise: Denoise = None,
    output: Drawn = None,
    *,
    open_: o.Open = False,
    where: RankFlags,
    split: SplitOption = SplitBy.pictures,
    choice: o.ModelChoice,
    messages: o.Messages,
    verbose: o.Verbose = False,
) -> None:
    """Turn noise into a picture or clip, by default with the settings with which it was encoded."""
    began = time.perf_counter()
    where.start()
    start = noise_in(noise, "NOISE")
    with content_of(noise):
        stored = noise_settings(noise)
        saved = StoredSettings.from_dict(stored, str(noise)) if "prompts" in stored else None
    count = len(start)
    batch = Batch((stored.get("prompt", ""),) * count, tuple(range(count)))
    if saved is not None and len(saved.prompts) == count:  # written by generate --save-latents
        batch = Batch(saved.prompts, saved.seeds)
    if prompt is not None:
        batch = dataclasses.replace(batch, prompts=(prompt,) * count)
    options: dict[str, Any] = {
        "denoise": stored.get("noise_seed") is not None if denoise is None else denoise
    }
    names = ("aspect_ratio", "frames", "fps", "window", "context_frames")
    for name, value in (("guidance", guidance), *((name, None) for name in names)):
        value = stored.get(name) if value is None else value
        if value is not None:
            options[name] = value
    if saved is not None:
        options = merged({"guidance": guidance, "denoise": denoise}, saved)
    model = choice.model
    if model is None and stored.get("model", "default") != "default":
        model = stored["model"]
        check_stored_model(model, str(noise))
    adapters = choice.adapters
    if not adapters:
        with content_of(noise):
            named = read_stored_adapters(Fields(stored, str(noise), UsageError))
        adapters = stored_adapters(named, str(noise))
    work: dict[str, Any] = {
        "model": model,
        "dtype": choice.type_name,
        "quantize": choice.recipe,
        "low_ram": False,
        "batches": [batch],
        "options": options,
        "adapters": adapters,
        "noise": start,
        "noise_file": str(noise),
        "expected_weights": stored.get("weights"),
    }
    group, clips = ranks(), start.ndim == 5
    if clips and (group is not None or split is not SplitBy.pictures):
        raise UsageError(f"{noise} has the noise of a clip, which is drawn in one process.")
    draw_either(
        clips, work, output, began, messages, verbose, open_,
        draw=lambda job, console: run_where_asked(job, console, group, split),
    )  # fmt: skip
