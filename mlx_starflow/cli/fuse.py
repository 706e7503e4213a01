"""``mlx-starflow fuse``: adapters made part of a model of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..generation.components import Components
from ..training.fuse import FuseReport
from ..training.fuse import fuse as run
from . import options as o
from .console import Console
from .failures import NOTHING, interruptible
from .fetch import Fetching, acquire
from .options import HOW, OUTPUT, WHAT, option

EPILOG = """\b
Examples:
  mlx-starflow fuse --adapter-path adapters --save-path my-model
  mlx-starflow generate "a fox in snow" --model my-model

What fusing loses to rounding is measured: the divergence between the model with the adapter beside
it and the fused one, on the former's own samples, in nats per dimension. Into 4-bit weights a small
adapter may be lost; then use it beside the model, or --dequantize.
"""
LOST = 0.1  # share of the adapters' change whose loss is warned of
SavePath = Annotated[
    Path,
    option("--save-path", panel=OUTPUT, metavar="DIR", help="The new model. Default: fused_model."),
]
Dequantize = Annotated[
    bool,
    option("--dequantize", panel=OUTPUT, help="Write float16 weights where the model's are "
            "quantized."),
]  # fmt: skip
Prompts = Annotated[
    list[str] | None,
    option("--prompt", panel=WHAT, metavar="TEXT", help="What the samples of the measurement are "
            "drawn for; several times for several. Default: nothing said."),
]  # fmt: skip
Samples = Annotated[
    int,
    option("--samples", panel=HOW, metavar="N", min=2, max=1024, help="Of the measurement. "
            "Default: 16."),
]  # fmt: skip
Seed = Annotated[int, option("--seed", panel=HOW, metavar="N", min=0, help="Of the samples.")]


def fuse(
    save_path: SavePath = Path("fused_model"),
    dequantize: Dequantize = False,
    prompt: Prompts = None,
    samples: Samples = 16,
    seed: Seed = 0,
    *,
    model: o.Model = None,
    adapter_path: o.AdapterPath = None,
    lora: o.LoraAdapters = None,
    messages: o.Messages,
) -> None:
    """Write a model whose weights hold an adapter, and measure what rounding lost.

    The new model's directory goes to standard output; with --json one object.
    """
    console = Console(messages.quiet)
    adapters = o.ModelChoice(adapter_path=adapter_path, lora=lora).adapters
    with interruptible(lambda: NOTHING):
        directory = acquire(model, None, console)
        components = Components(
            directory, model or "default", tell=Fetching(console), adapters=adapters
        )
        report = run(components, save_path, dequantize, tuple(prompt or ("",)), samples, seed)
    console.say(_sentence(report))
    typer.echo(json.dumps(report.to_dict()) if messages.json_ else str(report.path))


def _sentence(report: FuseReport) -> str:
    told = (
        f"Fusing lost {report.loss:.2g} ± {report.loss_error:.1g} nats per dimension; the adapter "
        f"changes {report.change:.2g} ± {report.change_error:.1g} ({report.samples} samples)."
    )
    if report.loss > LOST * max(report.change, 0.0):
        told = (
            f"Warning: {told} That is much of it: use the adapter beside the model "
            "(--adapter-path), or fuse with --dequantize."
        )
    return told
