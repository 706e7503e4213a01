"""The flags of ``mlx-starflow benchmark``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..benchmark import BenchmarkResult, RandomShape, parse_specs
from ..benchmark.quantization_cost import QuantizationResult
from ..errors import Interrupted, UsageError
from . import options as o
from .benchmark_jobs import Job, compare_precisions, compare_samplers
from .benchmark_tables import comparison_tables, quantization_table
from .console import Console
from .options import HOW, WHAT, option
from .picture_options import Fit, FitOption, Guidance
from .request import read_prompts

SAMPLERS = "sequential,jacobi,auto"
EPILOG = """\b
Examples:
  mlx-starflow benchmark
  mlx-starflow benchmark --samplers sequential,jacobi:16:1e-3,sliding:32 --repeat 5
  mlx-starflow benchmark --random 512,2,2,2,8 --grid 16 --text 32x256
  mlx-starflow benchmark --samplers sequential,auto --batch 8
  mlx-starflow benchmark --quantization --prompts 8

\b
What the numbers mean:
  A sampler is NAME[:WINDOW[:TOLERANCE[:SWEEPS]]]; jacobi without numbers has the published
  settings (16, 1e-3, 32). In each timed round every sampler runs once; times exclude loading, text,
  denoising and decoding. Weighted reads count a pass over a block by the block's share of all
  weights. Distances are from the sequential sample, in its standard deviations
  (docs/benchmarks.md).
"""

Samplers = Annotated[
    str | None,
    option("--samplers", panel=HOW, metavar="A,B", help=f"Samplers to compare. Default: "
            f"{SAMPLERS}."),
]  # fmt: skip
Repeat = Annotated[
    int | None,
    option("--repeat", panel=HOW, metavar="N", min=1, help="Timed rounds. Default: 3."),
]
Count = Annotated[
    int | None,
    option("--prompts", panel=WHAT, metavar="N", min=1, help="Different prompts. Default: 2; "
            "with --quantization 8; all of --prompt-file."),
]  # fmt: skip
PromptFile = Annotated[
    Path | None,
    option("--prompt-file", panel=WHAT, metavar="FILE", help="One prompt per line, instead of the "
            "built-in ones."),
]  # fmt: skip
Batch = Annotated[
    int | None,
    option("--batch", panel=WHAT, metavar="N", min=2, help="Also measure batches of N pictures, "
            "and their cost in units of one picture."),
]  # fmt: skip
Random = Annotated[
    str | None,
    option("--random", panel=WHAT, metavar="WIDTH,LAYERS,...", help="Random weights instead of a "
            "model: width, then the number of layers of every block, the deep block last."),
]  # fmt: skip
GridSide = Annotated[
    int | None,
    option("--grid", panel=WHAT, metavar="N", min=1, help="With --random: tokens along one side. "
            "Default: 16."),
]  # fmt: skip
Text = Annotated[
    str | None,
    option("--text", panel=WHAT, metavar="LxD", help="With --random: text tokens and their width. "
            "Default: 32x256."),
]  # fmt: skip
Quantization = Annotated[
    bool,
    option("--quantization", panel=HOW, help="Compare 16, 8 and 4 bits with float32: changes of "
            "the likelihood and of the sample."),
]  # fmt: skip
Pictures = Annotated[
    list[Path] | None,
    option("--picture", panel=WHAT, metavar="FILE", help="With --quantization: score these "
            "pictures instead of the model's samples; may be repeated."),
]  # fmt: skip


def benchmark(
    samplers: Samplers = None,
    repeat: Repeat = None,
    guidance: Guidance = None,
    quantization: Quantization = False,
    prompts: Count = None,
    prompt_file: PromptFile = None,
    batch: Batch = None,
    random: Random = None,
    grid: GridSide = None,
    text: Text = None,
    picture: Pictures = None,
    fit: FitOption = Fit.refuse,
    *,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Compare samplers, or with --quantization precisions, on this machine.

    Tables go to standard output (one JSON object with --json), progress to standard error.
    """
    console = Console(messages.quiet)
    shape = _shape(random, grid, text, choice.model, prompt_file, picture)
    if shape is not None and choice.adapters:
        raise UsageError("--random has no model; leave out --lora and --adapter-path.")
    lines = read_prompts(prompt_file) if prompt_file else None
    job = Job(
        shape=shape,
        model=choice.model,
        dtype=choice.type_name,
        quantize=choice.recipe,
        adapters=choice.adapters,
        prompts=lines,
        count=prompts or (len(lines) if lines else 8 if quantization else 2),
        batch=batch or 1,
        guidance=guidance,
    )
    result: QuantizationResult | BenchmarkResult
    try:
        if quantization:
            _refuse("--quantization compares precisions; leave out {}.", {
                "--samplers": samplers, "--repeat": repeat, "--batch": batch,
                "--dtype": choice.dtype, "--quantize": choice.quantize,
            })  # fmt: skip
            about, precisions = compare_precisions(job, picture or [], fit, console)
            result, table = precisions, quantization_table(precisions)
        else:
            _refuse("{} needs --quantization.", {"--picture": picture})
            specs = parse_specs(SAMPLERS if samplers is None else samplers)
            about, compared = compare_samplers(job, specs, repeat or 3, console)
            result, table = compared, comparison_tables(compared)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; there are no results before the end.") from None
    finally:
        console.clear()
    if messages.json_:
        typer.echo(json.dumps({**about, **result.to_dict()}))
    else:
        typer.echo(f"{about['subject']}\n{table}")


def _shape(
    random: str | None,
    grid: int | None,
    text: str | None,
    model: str | None,
    prompt_file: Path | None,
    picture: list[Path] | None,
) -> RandomShape | None:
    if random is None:
        _refuse("{} needs --random.", {"--grid": grid, "--text": text})
        return None
    _refuse(
        "--random has no text encoder and makes no pictures; leave out {}.",
        {"--model": model, "--prompt-file": prompt_file, "--picture": picture},
    )
    return RandomShape.parse(random, grid or 16, text or "32x256")


def _refuse(sentence: str, flags: dict[str, Any]) -> None:
    given = [name for name, value in flags.items() if value]
    if given:
        raise UsageError(sentence.format(", ".join(given)))
