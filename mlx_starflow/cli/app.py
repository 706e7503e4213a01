"""The ``mlx-starflow`` command: a table of commands and what surrounds every one of them.

Everything is imported inside ``main``, so that Ctrl-C is answered from the first moment on.
"""

from __future__ import annotations

import os
import re
import sys

# Name of a command → its module here, the function in it, and the constant with its examples.
COMMANDS = {
    "generate": ("generate", "generate", "EPILOG"),
    "info": ("info", "info", "EPILOG"),
    "score": ("score", "score", "EPILOG"),
    "encode": ("encode", "encode", "ENCODE_EPILOG"),
    "decode": ("encode", "decode", "DECODE_EPILOG"),
    "interpolate": ("interpolate", "interpolate", "EPILOG"),
    "vary": ("vary", "vary", "EPILOG"),
    "edit": ("edit", "edit", "EPILOG"),
    "serve": ("serve", "serve", "EPILOG"),
    "mcp": ("mcp", "mcp", "EPILOG"),
    "compress": ("compress", "compress", "EPILOG"),
    "decompress": ("decompress", "decompress", "EPILOG"),
    "benchmark": ("benchmark", "benchmark", "EPILOG"),
}
GROUPS = {"models": ("models", "models"), "watch": ("watch", "watch")}  # commands with commands


def build():
    """The Typer application with all commands."""
    from importlib import import_module
    from typing import Annotated

    import typer

    from ..hub.converter import converter_module
    from ..version import __version__
    from .flags import with_flags
    from .help import SectionedCommand

    app = typer.Typer(
        name="mlx-starflow",
        help="Pictures from a sentence on your own machine, by normalizing flows on MLX.",
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, (module, function, epilog) in COMMANDS.items():
        home = import_module(f".{module}", __package__)
        command = with_flags(getattr(home, function))
        app.command(name, epilog=getattr(home, epilog), cls=SectionedCommand)(command)
    convert = converter_module("command").convert_command
    app.command("convert", cls=SectionedCommand)(convert)
    for name, (module, group) in GROUPS.items():
        app.add_typer(getattr(import_module(f".{module}", __package__), group), name=name)

    def show_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"mlx-starflow {__version__}")
            raise typer.Exit

    Version = Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ]

    def root(context: typer.Context, version: Version = False) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help(), err=True)
            raise typer.Exit(2)

    # Typer reads annotations from a module's names; these are local to this function.
    root.__annotations__ = {"context": typer.Context, "version": Version}
    app.callback()(root)
    return app


def main() -> None:
    """Run the command line of this process and leave with its exit status."""
    status = run(sys.argv[1:])
    sys.stdout.flush()
    if status == 130:
        # A thread may be busy with a step of seconds; nobody waits for it any more.
        os._exit(status)
    mlx = sys.modules.get("mlx.core")
    if hasattr(mlx, "clear_streams"):
        mlx.clear_streams()  # MLX wants this at the end of a process, see its documentation
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run a command line; its exit status. The one place where errors are shown."""
    debug = "--debug" in arguments
    arguments = spread_seeds([a for a in arguments if a != "--debug"])
    try:
        status = build()(arguments, prog_name="mlx-starflow", standalone_mode=False)
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:  # whoever read standard output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException as error:
        return _failed(error, debug)


def _failed(error: BaseException, debug: bool) -> int:
    """Say what went wrong; the exit status."""
    from .failures import explain

    if debug:
        import traceback

        traceback.print_exception(error)
    failure = explain(error)
    sys.stdout.flush()
    sys.stderr.write(f"mlx-starflow: {failure.message}\n")
    sys.stderr.flush()
    return failure.status


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
