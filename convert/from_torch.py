"""``python -m convert.from_torch CHECKPOINT.pth --output DIR``: the converter as a command."""

from __future__ import annotations

import sys

import typer

from mlx_starflow.errors import Interrupted, StarflowError, UsageError
from mlx_starflow.files.visible import visible_output

from .command import convert_command


@visible_output()
def main(arguments: list[str] | None = None) -> None:
    """Run the command. ``arguments``: None for those of the process.

    Exit status: 0 success, 2 wrong usage, 130 interrupted, 1 any other failure.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(convert_command)
    try:
        app(arguments)
    except UsageError as error:
        _fail(error, 2)
    except StarflowError as error:
        _fail(error, 1)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 1)
    except Interrupted as interrupt:
        _fail(interrupt, 130)


def _fail(message: object, status: int) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
