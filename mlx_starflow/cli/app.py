"""The ``mlx-starflow`` command: the table of commands, and how a command line is run.

Modules are imported inside the functions, so that Ctrl-C works from the start.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.visible import visible_output
from .membership import membership

if TYPE_CHECKING:
    from ..ranks import Group

HERE = Path(__file__).parent

# Command → its module in this package, the function in it, and the constant with its examples.
COMMANDS = {
    "generate": ("generate", "generate", "EPILOG"),
    "video": ("video", "video", "EPILOG"),
    "info": ("info", "info", "EPILOG"),
    "score": ("score", "score", "EPILOG"),
    "encode": ("encode", "encode", "ENCODE_EPILOG"),
    "decode": ("encode", "decode", "DECODE_EPILOG"),
    "interpolate": ("interpolate", "interpolate", "EPILOG"),
    "vary": ("vary", "vary", "EPILOG"),
    "edit": ("edit", "edit", "EPILOG"),
    "train": ("train", "train", "EPILOG"),
    "fuse": ("fuse", "fuse", "EPILOG"),
    "export": ("export", "export", "EPILOG"),
    "serve": ("serve", "serve", "EPILOG"),
    "mcp": ("mcp", "mcp", "EPILOG"),
    "compress": ("compress", "compress", "EPILOG"),
    "decompress": ("decompress", "decompress", "EPILOG"),
    "benchmark": ("benchmark", "benchmark", "EPILOG"),
    "doctor": ("doctor", "doctor", "EPILOG"),
}
GROUPS = {"models": ("models", "models"), "watch": ("watch", "watch")}  # have sub-commands


def build(only: str | None = None) -> Any:
    """The Typer application.

    ``only``: a command. The other commands are then listed in ``--help`` but not imported, which is
    faster. "": import none; None: import all.
    """
    from importlib import import_module
    from typing import Annotated

    import typer

    from ..hub.converter import HOME as CONVERTER
    from ..hub.converter import converter_module
    from ..version import __version__

    if only != "":
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

    def wanted(name: str) -> bool:
        return only is None or name == only

    for name, (module, function, epilog) in COMMANDS.items():
        if wanted(name):
            home = import_module(f".{module}", __package__)
            command = with_flags(getattr(home, function))
            app.command(name, epilog=getattr(home, epilog), cls=SectionedCommand)(command)
        else:
            app.command(name)(_stub(HERE / f"{module}.py", function))
    if wanted("convert"):
        convert = converter_module("command").convert_command
        app.command("convert", cls=SectionedCommand)(convert)
    else:
        app.command("convert")(_stub(CONVERTER / "command.py", "convert_command"))
    for name, (module, group) in GROUPS.items():
        if wanted(name):
            app.add_typer(getattr(import_module(f".{module}", __package__), group), name=name)
        else:
            app.command(name)(_stub(HERE / f"{module}.py"))

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

    # Typer would look the names in annotations up in the module, but these are local.
    root.__annotations__ = {"context": typer.Context, "version": Version}
    app.callback()(root)
    return app


def _stub(file: Path, function: str | None = None) -> Any:
    """A command for the list in ``--help`` only. Its help is the docstring of a function in a file,
    or, without ``function``, the help text of a group in it."""

    def listed() -> None: ...

    listed.__doc__ = _help_of(file, function)
    return listed


@cache
def _help_of(file: Path, function: str | None) -> str:
    import ast

    tree = ast.parse(file.read_text(encoding="utf-8"))
    if function is None:
        calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call))
        helps = (k.value for n in calls for k in n.keywords if k.arg == "help")
        return next(str(value.value) for value in helps if isinstance(value, ast.Constant))
    found = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    return ast.get_docstring(next(found)) or ""


def parser(only: str | None = None) -> Any:
    """The parser of command lines; its attribute ``commands`` has the commands by name. ``only``:
    see ``build``."""
    import typer

    return typer.main.get_command(build(only))


def main() -> None:
    """Run the command line of this process and exit with its status."""
    if sys.stderr is None:  # closed by the program that started this one
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  open until the process ends
    status = run(sys.argv[1:])
    _flush()
    if status == 130:
        # Do not wait for a thread that may be busy for seconds.
        os._exit(status)
    mlx: Any = sys.modules.get("mlx.core")
    if hasattr(mlx, "clear_streams"):
        mlx.clear_streams()  # needed before a process ends, see MLX's documentation
    sys.exit(status)


def _asked(arguments: list[str]) -> str:
    """The command in a command line, "" for none. A line that a shell completes is in the
    environment: in one variable from bash, in another from the other shells."""
    if "_MLX_STARFLOW_COMPLETE" in os.environ:
        line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
        arguments = line.split()
    names = (*COMMANDS, *GROUPS, "convert")
    return next((argument for argument in arguments if argument in names), "")


@visible_output()
def run(arguments: list[str]) -> int:
    """Run a command line. Returns its exit status. Errors are shown here, as one line."""
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        if sys.stdout is None:
            from ..errors import StarflowError

            raise StarflowError(
                "Standard output is closed, but results are written to it. Redirect it: > FILE, or "
                "> /dev/null."
            )
        asked = _asked(arguments)
        with membership(asked, arguments) as group:
            try:
                status = _run(arguments, asked)
            except BaseException as error:
                if group is None:
                    raise
                return _failed_rank(group, error, debug)
            if group is not None:
                group.leave()
            return status
    except BrokenPipeError:  # the program that read standard output has ended
        _flush()
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException as error:
        return _failed(error, debug)


def _run(arguments: list[str], asked: str | None) -> int:
    command = parser(asked)
    if asked:
        from .arguments import prepared

        arguments = prepared(arguments, command.commands)
    status = command.main(arguments, prog_name="mlx-starflow", standalone_mode=False)
    sys.stdout.flush()
    if status == 130:  # Typer's status after Ctrl-C, about which it prints nothing
        raise KeyboardInterrupt
    return status or 0


def _failed_rank(group: Group, error: BaseException, debug: bool) -> int:
    """Show an error of one of several ranks, end the others, and return the exit status."""
    from .failures import explain

    if isinstance(error, SystemExit):
        if error.code in (None, 0):
            group.leave()
            return 0
        status = error.code if isinstance(error.code, int) else 1
        group.failed(f"it ended with status {status}", status)
        return status
    from ..ranks.engine import is_lost_peer

    if is_lost_peer(error):
        group.await_end()
    failure = explain(error)
    group.failed(failure.message, failure.status)
    if isinstance(error, BrokenPipeError):
        _flush()
        return 1
    return _failed(error, debug)


def _failed(error: BaseException, debug: bool) -> int:
    """Show an error and return the exit status."""
    from .failures import explain

    if debug:
        import traceback

        traceback.print_exception(error)
    failure = explain(error)
    _flush()
    sys.stderr.write(f"mlx-starflow: {failure.message}\n")
    sys.stderr.flush()
    return failure.status


def _flush() -> None:
    """Flush standard output. If that fails, redirect it to the null device, since Python would try
    again at exit and print an error."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
