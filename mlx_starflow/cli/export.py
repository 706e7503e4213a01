"""``mlx-starflow export``: a model as functions for apps without Python."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..export import WHAT as PARTS
from ..export import ExportReport
from ..export import export as run
from ..generation.components import Components
from . import options as o
from .console import Console
from .failures import NOTHING, interruptible
from .fetch import Fetching, acquire
from .options import HOW, MEMORY, OUTPUT, WHAT, option
from .picture_options import Guidance

EPILOG = """\b
Examples:
  mlx-starflow export --output fox-app
  mlx-starflow export --output fox-app --what steps --quantize 4
  mlx-starflow export my-model --output scores --what score

docs/native-apps.md says how a program in C++ or Swift uses the folder. Shapes, guidance, device and
the version of MLX are fixed in an export.
"""

Part = StrEnum("Part", {name: name for name in PARTS})  # type: ignore[misc]
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]", rich_help_panel=MEMORY, show_default=False,
        help="The directory of a converted model, a known name or a hub repository. Default: the "
        "model inside the package.",
    ),
]  # fmt: skip
Output = Annotated[
    Path, option("--output", "-o", panel=OUTPUT, metavar="DIR", help="The new folder.")
]
What = Annotated[
    Part | None,
    option("--what", panel=WHAT, help="picture: one function from noise and text to pixels; steps: "
            "pieces, with the loops in the app; score: likelihood; text: the text encoder alone. "
            "Default: picture for a small flow, else steps."),
]  # fmt: skip
Batch = Annotated[
    int, option("--batch", panel=HOW, metavar="N", min=1, max=64, help="Pictures at a time. "
                "Default: 1.")
]  # fmt: skip
AspectRatio = Annotated[
    str | None,
    option("--aspect-ratio", panel=WHAT, metavar="W:H", help="Of the pictures. Default: 1:1."),
]
Denoise = Annotated[
    bool | None,
    option("--denoise/--no-denoise", panel=HOW, help="Remove the noise of training from pictures. "
            "Default: the model's."),
]  # fmt: skip
Tile = Annotated[
    int | None,
    option("--tile", panel=MEMORY, metavar="N", min=8, help="Steps: decode in tiles of N latent "
            "cells along a side, which needs less memory. Default: whole, unless it is large."),
]  # fmt: skip


def export(
    model: Model = None,
    output: Output = Path("exported"),
    what: What = None,
    batch: Batch = 1,
    aspect_ratio: AspectRatio = None,
    guidance: Guidance = None,
    denoise: Denoise = None,
    tile: Tile = None,
    *,
    dtype: o.Precision = None,
    quantize: o.Quantize = None,
    adapter_path: o.AdapterPath = None,
    lora: o.LoraAdapters = None,
    messages: o.Messages,
) -> None:
    """Write functions of a model for apps in C++ and Swift, without Python.

    The folder goes to standard output; with --json one object.
    """
    console = Console(messages.quiet)
    choice = o.ModelChoice(model, dtype, quantize, adapter_path, lora)
    with interruptible(lambda: NOTHING):
        directory = acquire(model, choice.recipe, console)
        components = Components(
            directory, model or "default", choice.type_name, choice.recipe, Fetching(console),
            choice.adapters,
        )  # fmt: skip
        report = run(
            components, output, what.value if what else None, batch=batch,
            aspect_ratio=aspect_ratio, guidance=guidance, denoise=denoise, tile=tile,
        )  # fmt: skip
    console.say(_sentence(report))
    typer.echo(json.dumps(report.to_dict()) if messages.json_ else str(report.path))


def _sentence(report: ExportReport) -> str:
    return (
        f"{report.what}: {report.functions} functions, {report.bytes / 1e6:.1f} MB, fingerprint "
        f"{report.fingerprint[:16]}"
    )
