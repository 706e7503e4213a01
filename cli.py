"""The ``mlx-starflow`` command: a table of commands and what surrounds every one of them."""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from typing import Annotated

import typer

from convert.command import convert_command
from mlx_starflow.app import (
    benchmark_command,
    generate_command,
    info_command,
    models_command,
    picture_commands,
)
from mlx_starflow.app.failures import INTERRUPTED, USAGE, explain
from mlx_starflow.app.help import SectionedCommand
from mlx_starflow.version import __version__

app = typer.Typer(
    name="mlx-starflow",
    help="Pictures from a sentence on your own machine, by normalizing flows on MLX.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = {
    "generate": (generate_command.generate, generate_command.EPILOG),
    "convert": (convert_command, None),
    "info": (info_command.info, info_command.EPILOG),
    **picture_commands.COMMANDS,
    "benchmark": (benchmark_command.benchmark, benchmark_command.EPILOG),
}
for _name, (_function, _epilog) in COMMANDS.items():
    app.command(_name, epilog=_epilog, cls=SectionedCommand)(_function)
app.add_typer(models_command.models, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlx-starflow {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(USAGE)


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and leave with its exit status; the one place where errors are shown."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = spread_seeds([a for a in arguments if a != "--debug"])
    try:
        status = app(arguments, prog_name="mlx-starflow", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read standard output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        failure = explain(error)
        sys.stderr.write(f"mlx-starflow: {failure.message}{_hint(failure.message)}\n")
        status = failure.status
    if status == INTERRUPTED:
        # A thread may be busy with a step of seconds; nobody waits for it any more.
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    sys.exit(status or 0)


def spread_seeds(arguments: list[str]) -> list[str]:
    """``--seed 1 2 3`` as ``--seed 1 --seed 2 --seed 3``, the form that the parser knows."""
    spread: list[str] = []
    inside = False
    for i, argument in enumerate(arguments):
        if argument == "--":
            return spread + arguments[i:]
        if inside and re.fullmatch(r"\d+", argument) and spread[-1] != "--seed":
            spread.append("--seed")
        elif argument.startswith("-") or (inside and spread[-1] != "--seed"):
            inside = argument == "--seed"
        spread.append(argument)
    return spread


def _hint(message: str) -> str:
    """The nearest command to a misspelt one."""
    found = re.search(r"No such command '([^']+)'", message)
    if found is None or "Did you mean" in message:  # newer versions of Typer have said it
        return ""
    near = difflib.get_close_matches(found.group(1), [*COMMANDS, "models"], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


if __name__ == "__main__":
    main()
