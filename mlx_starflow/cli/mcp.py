"""``mlx-starflow mcp``: drawing, scoring and editing as tools for an AI assistant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ..errors import UsageError
from ..generation.capabilities import installed
from . import options as o
from .console import Console
from .options import OUTPUT, option
from .picture_options import open_model
from .serve import default_folder

EPILOG = """\b
Examples:
  mlx-starflow mcp
  mlx-starflow mcp --model my-model --output pictures

A server for the Model Context Protocol over standard input and output. Add the command to the
assistant's settings, for example:

  {"mcpServers": {"mlx-starflow": {"command": "mlx-starflow", "args": ["mcp"]}}}

Tools: generate, score, edit, info. Pictures are returned as the path of a file and a small
preview.
"""

Folder = Annotated[
    Path | None,
    option("--output", "-o", panel=OUTPUT, metavar="DIR", help="Directory for pictures. Default: "
            "Pictures/mlx-starflow in your home directory."),
]  # fmt: skip


def mcp(
    output: Folder = None,
    *,
    choice: o.ModelChoice,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Give an AI assistant tools to draw, score and edit pictures, over MCP."""
    if not installed("mcp"):
        raise UsageError("This needs the package mcp: pip install 'mlx-starflow[mcp]'.")
    from ..server.tools import tool_server

    folder = (output or default_folder()).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; expected a directory.")
    with open_model(choice, Console(quiet)) as pipe:
        tool_server(pipe, folder).run("stdio")
