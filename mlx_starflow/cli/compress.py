"""``mlx-starflow compress``: compress pictures with the flow as entropy model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import typer
from PIL import Image as Pillow

from ..codec import Compressed, compress_picture, decompress, step_of_quality
from ..errors import UsageError
from ..exact.codec_stream import coder
from ..pictures.arrays import write_whole
from ..pictures.read import pictures_in
from ..pipeline import Pipeline
from . import options as o
from .attempts import Attempts
from .console import Console
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_directory
from .picture_options import Fit, FitOption, Images, open_model, take_picture
from .prompts import check_quotes, tell_prompts
from .results import interrupted

SUFFIX = ".flow"
EPILOG = """\b
Examples:
  mlx-starflow compress fox.png --output fox.flow
  mlx-starflow compress fox.png --step 0.8 --prompt "a fox in snow" --output fox.flow
  mlx-starflow compress paintings/ --target-bytes 300 --output small/
  mlx-starflow decompress fox.flow --output back.png

A file can only be decompressed with the model that made it. Pictures like those that the model was
trained on need few bytes; other pictures need more. The compression is lossy: the result has the
errors of the autoencoder and of the rounding to steps.
"""

Output = Annotated[
    Path | None,
    option("--output", "-o", panel=OUTPUT, metavar="FILE", help="A file name ending in .flow, or "
            "a folder for several pictures. Never overwritten (_1, _2 is added). Default: the "
            "picture's name with .flow."),
]  # fmt: skip
Step = Annotated[
    float | None,
    option("--step", panel=HOW, metavar="S", help="Width of the quantiser's cells: larger means "
            "fewer bytes and more loss. Default: 0.5."),
]  # fmt: skip
Quality = Annotated[
    float | None,
    option("--quality", panel=HOW, metavar="Q", min=0.0, max=100.0, help="Set the step by a "
            "quality from 0 to 100: 50 is step 0.5, and 20 more halve the step."),
]  # fmt: skip
TargetBytes = Annotated[
    int | None,
    option("--target-bytes", panel=HOW, metavar="N", min=1, help="Choose the step so that the "
            "file is not larger than this."),
]  # fmt: skip
Prompt = Annotated[
    str, option("--prompt", panel=WHAT, help="What the picture shows. Makes the code smaller; "
                 "stored in the file. Default: none.")
]  # fmt: skip
Seed = Annotated[
    int | None,
    option("--seed", panel=HOW, metavar="N", min=0, help="Seed of the quantiser's grids. "
            "Default: the first one with which other machines can decompress the file too."),
]  # fmt: skip
Check = Annotated[
    bool,
    option("--check/--no-check", panel=OUTPUT, help="Decompress the file and report the PSNR. "
            "Default: yes."),
]  # fmt: skip


def compress(
    images: Images,
    prompt: Prompt = "",
    step: Step = None,
    quality: Quality = None,
    target_bytes: TargetBytes = None,
    seed: Seed = None,
    fit: FitOption = Fit.refuse,
    check: Check = True,
    output: Output = None,
    *,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Compress pictures to some hundred bytes each, with the flow as entropy model.

    The paths of the files go to standard output; with --json one object with bytes, ideal_bytes
    (from the likelihood, without the header) and psnr in dB. After one of several pictures that
    cannot be read the others are compressed; the exit status is then 1.
    """
    console = Console(messages.quiet)
    if sum(value is not None for value in (step, quality, target_bytes)) > 1:
        raise UsageError("Give only one of --step, --quality and --target-bytes.")
    coder()
    check_quotes(images, [prompt])
    paths = pictures_in(images)
    several = len(paths) > 1 or images[0].is_dir()
    _check_place(output, several)
    options: dict[str, Any] = {"prompt": prompt, "seed": seed, "target_bytes": target_bytes}
    if quality is not None:
        step = step_of_quality(quality)
    if step is not None:
        options["step"] = step
    records: list[dict[str, Any]] = []
    attempts = Attempts(paths, console, "compressed")
    try:
        with open_model(choice, console) as pipe:
            tell_prompts(pipe, [prompt], console)

            def one(path: Path) -> dict[str, Any]:
                picture, _ = take_picture(pipe, path, fit, console)
                made = compress_picture(pipe, picture, **options)
                psnr = _psnr(pipe, made, picture.image) if check else None
                written = _write(_place(path, output, several), made.data)
                return _record(path, written, made, psnr)

            for record in attempts.each(one, "compress"):
                records.append(record)
                console.say(_sentence(record))
    except KeyboardInterrupt:
        console.clear()
        raise interrupted([r["path"] for r in records], len(paths), "picture") from None
    if messages.json_:
        about = _summary(records) | attempts.about() if several else records[0]
        typer.echo(json.dumps(about))
    else:
        for record in records:
            typer.echo(record["path"])
    attempts.finish()


def _check_place(output: Path | None, several: bool) -> None:
    if output is None:
        return
    if several:
        if output.suffix == SUFFIX or output.is_file():
            raise UsageError(f"--output {output}: expected a folder, for several pictures.")
        check_directory(output)
        return
    if output.suffix != SUFFIX:
        raise UsageError(f"--output {output}: expected a name ending in {SUFFIX}.")
    check_directory(output.parent)


def _place(path: Path, output: Path | None, several: bool) -> Path:
    if output is None:
        return path.with_suffix(SUFFIX)
    return output / f"{path.stem}{SUFFIX}" if several else output


def _write(path: Path, data: bytes) -> Path:
    def write(file: BinaryIO) -> None:
        file.write(data)

    return write_whole(path, write, overwrite=False)


def _psnr(pipe: Pipeline, made: Compressed, picture: Pillow.Image) -> float:
    back = decompress(pipe, made.data).convert("RGB")
    error = np.mean(np.square(np.asarray(back, np.float64) - np.asarray(picture, np.float64)))
    return float(10 * np.log10(255**2 / np.maximum(error, 1e-10)))


def _record(source: Path, path: Path, made: Compressed, psnr: float | None) -> dict[str, Any]:
    return {
        "path": str(path),
        "source": str(source),
        "bytes": len(made.data),
        "header_bytes": made.header_bytes,
        "code_bytes": made.code_bytes,
        "ideal_bytes": made.ideal_bytes,
        "psnr": psnr,
        "step": made.step,
        "seed": made.seed,
        "portable": made.portable,
        "prompt": made.prompt,
    }


def _summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    measured = [r["psnr"] for r in records if r["psnr"] is not None]
    return {
        "bytes": sum(r["bytes"] for r in records),
        "ideal_bytes": sum(r["ideal_bytes"] for r in records),
        "psnr": float(np.mean(measured)) if measured else None,
        "files": records,
    }


def _sentence(record: dict[str, Any]) -> str:
    quality = "" if record["psnr"] is None else f", PSNR {record['psnr']:.2f} dB"
    return (
        f"{record['source']}: {record['bytes']} bytes ({record['header_bytes']} of them header; "
        f"ideal code {record['ideal_bytes']:.1f}), step {record['step']:.4g}{quality}"
    )
