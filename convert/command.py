"""The converter as a command: ``mlx-starflow convert`` and ``python -m convert.from_torch``."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_starflow.cli.console import Console
from mlx_starflow.errors import Interrupted, UsageError

from .bundle import convert_steps
from .options import ConvertOptions, ConvertProgress, ConvertReport

_PHASES = {"flow": "flow", "vae": "VAE", "text_encoder": "text encoder", "verify": "verify"}


def convert_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="A .pth or .safetensors checkpoint, or a directory of shards.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the bundle.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML published with a STARFlow. Default: the one beside the checkpoint."
        ),
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="diffusers AutoencoderKL: directory or hub repository.")
    ] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="transformers T5 or Gemma: directory or hub repository.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float16 or bfloat16 for the large matrices. Default: as in the "
            "checkpoint; bfloat16 with --quantize."
        ),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", "-q", help="4 or 8 bits, or 'mixed' (4 and 8).")
    ] = None,
    noise_std: Annotated[
        float | None,
        typer.Option(help="Noise level of the training, if no file contains it."),
    ] = None,
    weights_key: Annotated[
        str | None, typer.Option(help="Which weights to use, if the checkpoint has several sets.")
    ] = None,
    ignore_key: Annotated[
        list[str] | None,
        typer.Option(help="A YAML setting to ignore; may be repeated."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the model. Default: the file's.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing bundle.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Reload the bundle, compare every tensor, run the flow."),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object.")
    ] = False,
) -> None:
    """Convert a PyTorch checkpoint to a bundle. Needs no PyTorch and runs no code in the file."""
    for path in (checkpoint, config):
        if path is not None and not path.expanduser().exists():
            raise UsageError(f"{path}: there is no such file.")
    options = ConvertOptions(
        checkpoint=checkpoint.expanduser(),
        output=output.expanduser(),
        config=config,
        vae=vae,
        text_encoder=text_encoder,
        dtype=dtype,
        quantize=quantize,
        noise_std=noise_std,
        weights_key=weights_key,
        ignore_keys=tuple(ignore_key or ()),
        name=name,
        overwrite=overwrite,
        verify=verify,
    )
    try:
        with _terminable():
            report = _follow(convert_steps(options))
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; nothing was written to {output}.") from None
    _show(report, json_output)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception inside the ``with`` block, so that files are cleaned up."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # signal handlers can be set in the main thread only
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _follow(steps: Generator[ConvertProgress | ConvertReport, None, None]) -> ConvertReport:
    """Run the conversion, show its progress on a terminal, and return the report."""
    console, phase, began = Console(), "", 0.0
    last = None
    try:
        for last in steps:
            if not isinstance(last, ConvertProgress):
                continue
            if last.phase != phase:
                phase, began = last.phase, time.monotonic()
            share = last.done / last.total if last.total else 1.0
            left = (time.monotonic() - began) * (1 / share - 1) if share > 0 else 0.0
            detail = f"{_size(last.done)} of {_size(last.total)}"
            console.draw(_PHASES[phase], detail, share, left)
    finally:
        steps.close()
        console.clear()
    if not isinstance(last, ConvertReport):
        raise UsageError("The conversion ended without a result.")
    return last


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _show(report: ConvertReport, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_dict(), default=str))
        return
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    if report.unquantized:
        names = ", ".join(report.unquantized[:3])
        more = f" and {len(report.unquantized) - 3} more" if len(report.unquantized) > 3 else ""
        typer.echo(
            f"note: not quantized, since the width is not a multiple of 64: {names}{more}", err=True
        )
    if report.verified:
        found = ", ".join(f"{k} {v:.3g}" for k, v in report.verified.items())
        typer.echo(f"verified: {found}", err=True)
    for kind, place in report.components.items():
        if place.startswith("hub:"):
            typer.echo(
                f"note: not in the bundle: {_PHASES[kind]}; {place.removeprefix('hub:')} is "
                "downloaded from the hub at first use",
                err=True,
            )
    typer.echo(
        f"{report.output}: {report.model_type}, {report.parameters / 1e6:.1f} M parameters, "
        f"{_size(report.source_bytes)} to {_size(report.written_bytes)} in {report.seconds:.1f} s "
        f"({', '.join(report.written)})"
    )
