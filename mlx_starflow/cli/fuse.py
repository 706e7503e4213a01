"""``mlx-starflow fuse``: merge adapters into the weights of a new model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..generation.components import Components
from ..generation.context import tokenizer_notes, unknown_words
from ..training.fuse import FuseReport
from ..training.fuse import fuse as run
from . import options as o
from .console import Console
from .failures import NOTHING, interruptible
from .fetch import Fetching, acquire
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_directory

EPILOG = """\b
Examples:
  mlx-starflow fuse --adapter-path adapters --save-path my-model
  mlx-starflow generate "a fox in snow" --model my-model

The command measures what is lost by rounding: the divergence between the model with a separate
adapter and the fused model, on samples of the former, in nats per dimension. Rounding to 4 bits can
remove most of the effect of a small adapter; keep the adapter separate then, or use --dequantize.
"""
LOST = 0.1  # loss above which there is a warning, as a share of the adapters' change
SavePath = Annotated[
    Path,
    option("--save-path", panel=OUTPUT, metavar="DIR", help="The new model. Default: fused_model."),
]
Dequantize = Annotated[
    bool,
    option("--dequantize", panel=OUTPUT, help="Write float16 weights in place of quantized "
            "weights."),
]  # fmt: skip
Prompts = Annotated[
    list[str] | None,
    option("--prompt", panel=WHAT, metavar="TEXT", help="Prompt of the samples of the measurement; "
            "repeat the flag for several prompts. Default: no prompt."),
]  # fmt: skip
Samples = Annotated[
    int,
    option("--samples", panel=HOW, metavar="N", min=2, max=1024, help="Samples of the measurement. "
            "Default: 16."),
]  # fmt: skip
Seed = Annotated[int, option("--seed", panel=HOW, metavar="N", min=0, help="Seed of the samples.")]


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
    """Merge an adapter into the weights of a new model, and measure the loss from rounding.

    The new model's directory is written to standard output, with --json as part of one JSON object.
    """
    console = Console(messages.quiet)
    adapters = o.ModelChoice(adapter_path=adapter_path, lora=lora).adapters
    check_directory(save_path.parent)
    with interruptible(lambda: NOTHING):
        directory = acquire(model, None, console)
        components = Components(
            directory, model or "default", tell=Fetching(console), adapters=adapters
        )
        if prompt:
            for note in unknown_words(components, prompt) + tokenizer_notes(components, prompt):
                console.say(f"Warning: {note}")
        report = run(components, save_path, dequantize, tuple(prompt or ("",)), samples, seed)
    console.say(_sentence(report))
    typer.echo(json.dumps(report.to_dict()) if messages.json_ else str(report.path))


def _sentence(report: FuseReport) -> str:
    told = (
        f"Fusing lost {report.loss:.2g} ± {report.loss_error:.1g} nats per dimension; the change "
        f"by the adapter is {report.change:.2g} ± {report.change_error:.1g} "
        f"({report.samples} samples)."
    )
    if report.loss > LOST * max(report.change, 0.0):
        told = (
            f"Warning: {told} The loss is a large part of the change: keep the adapter separate "
            "(--adapter-path), or fuse with --dequantize."
        )
    return told
