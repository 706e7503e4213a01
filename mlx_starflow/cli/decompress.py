"""``mlx-starflow decompress``: from files of ``compress`` to pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..codec import decompress as decompress_file
from ..codec import inspect
from ..codec.file import LARGEST_FILE
from ..errors import CodecError, UsageError
from ..exact.codec_stream import coder
from ..files.regular import read_regular
from ..pictures.metadata import save_picture
from . import options as o
from .attempts import Attempts
from .compress import SUFFIX
from .console import Console
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_directory, check_output
from .picture_options import open_model
from .results import interrupted

T = TypeVar("T")
EPILOG = """\b
Examples:
  mlx-starflow decompress fox.flow --output back.png
  mlx-starflow decompress small/ --output pictures/

It is an error if a file is damaged, was made with another model, or decodes to other numbers on
this machine. A wrong picture is never written.
"""

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", rich_help_panel=WHAT, help="Files written by compress, or folders of "
        "them.", show_default=False,
    ),
]  # fmt: skip
Output = Annotated[
    Path | None,
    option("--output", "-o", panel=OUTPUT, metavar="IMAGE", help="The picture: .png, .jpg or "
            ".webp, or a folder for several files. Never overwritten (_1, _2 is added). Default: "
            "the file's name with .png."),
]  # fmt: skip
Denoise = Annotated[
    bool,
    option("--denoise/--no-denoise", panel=HOW, help="Remove the noise of the quantisation from "
            "the latents, which makes the picture smoother. Default: no."),
]  # fmt: skip


def decompress(
    files: Files,
    denoise: Denoise = False,
    output: Output = None,
    *,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Turn files made by compress into pictures.

    The paths of the pictures go to standard output. After one of several files that cannot be read
    the others are decompressed; the exit status is then 1.
    """
    console = Console(messages.quiet)
    coder()
    paths = _files_in(files)
    several = len(paths) > 1 or files[0].is_dir()
    if output is not None and several:
        check_directory(output)
    elif output is not None:
        check_output(output)
    if len(paths) == 1:  # before the model is loaded
        _named(paths[0], partial(inspect, _read(paths[0])))
    attempts = Attempts(paths, console, "decompressed", "file", CodecError)
    records: list[dict[str, Any]] = []
    try:
        with open_model(choice, console) as pipe:

            def one(path: Path) -> dict[str, Any]:
                data = _read(path)
                header = _named(path, partial(inspect, data))
                picture = _named(path, partial(decompress_file, pipe, data, denoise=denoise))
                place = path.with_suffix(".png")
                if output is not None:
                    place = output / f"{path.stem}.png" if several else output
                written = save_picture(picture, place, overwrite=False)
                return {
                    "path": str(written), "source": str(path), "bytes": len(data),
                    "step": header.step, "prompt": header.prompt,
                }  # fmt: skip

            records.extend(attempts.each(one, "decompress"))
    except KeyboardInterrupt:
        raise interrupted([r["path"] for r in records], len(paths), "file") from None
    finally:
        console.clear()
    if messages.json_:
        typer.echo(json.dumps({"files": records, **attempts.about()} if several else records[0]))
    else:
        for record in records:
            typer.echo(record["path"])
    attempts.finish()


def _files_in(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix == SUFFIX)
            if not inside:
                raise UsageError(f"{path} has no files ending in {SUFFIX}.")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: there is no such file.")
    return found


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, LARGEST_FILE)
    except OSError as error:
        raise CodecError(f"{path} cannot be read: {error.strerror}.") from error


def _named(path: Path, work: Callable[[], T]) -> T:
    """Call work() and return its result; the file's name is added to a CodecError."""
    try:
        return work()
    except CodecError as error:
        raise CodecError(f"{path}: {error}") from None
