"""``mlx-starflow serve``: an image server with a web page."""

from __future__ import annotations

import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Interrupted, UsageError
from ..generation.capabilities import installed
from . import options as o
from .console import Console
from .membership import ranks
from .options import HOW, OUTPUT, TALK, option
from .picture_options import open_model
from .rank_options import RankFlags
from .serve_ranks import RankHelpers, agree_to_serve, help_to_serve

EPILOG = """\b
Examples:
  mlx-starflow serve --open
  mlx-starflow serve --model my-model --port 9000 --output pictures
  MLX_STARFLOW_API_KEY=... mlx-starflow serve --host 0.0.0.0

The command shows the address of the page. Programs use OpenAI's images API at /v1, three routes of
AUTOMATIC1111 at /sdapi/v1, or this server's own API at /api; all are described at /openapi.json and
in docs/serving.md. Ctrl-C ends the server and cancels what it draws.
"""
KEY = "MLX_STARFLOW_API_KEY"
WHERE = "Where to listen"


class LogLevel(StrEnum):
    critical = "critical"
    error = "error"
    warning = "warning"
    info = "info"
    debug = "debug"


Host = Annotated[
    str,
    option("--host", panel=WHERE, metavar="ADDRESS", help="Address to listen on. Addresses other "
            "than 127.0.0.1 allow access from other computers and need --api-key."),
]  # fmt: skip
Port = Annotated[
    int,
    option("--port", panel=WHERE, metavar="N", min=0, max=65535, help="Port to listen on; 0 "
            "chooses a free one. Default: 8080."),
]  # fmt: skip
Origins = Annotated[
    list[str] | None,
    option("--allowed-origins", panel=WHERE, metavar="ORIGIN", help="An origin, such as "
            "https://example.org, whose pages may call the server; may be repeated; * for all. "
            "Default: only the server's own page."),
]  # fmt: skip
ApiKey = Annotated[
    str | None,
    option("--api-key", panel=WHERE, metavar="KEY", help=f"A key that every request must have. "
            f"Better set it in the environment as {KEY}, which other users cannot see."),
]  # fmt: skip
Folder = Annotated[
    Path | None,
    option("--output", "-o", panel=OUTPUT, metavar="DIR", help="Directory for pictures; the "
            "page's gallery shows it. Default: Pictures/mlx-starflow in your home directory."),
]  # fmt: skip
MaxBatch = Annotated[
    int,
    option("--max-batch", panel=HOW, metavar="N", min=1, max=256, help="Most pictures in one "
            "batch; fewer if memory is short. Default: 16."),
]  # fmt: skip
MaxQueue = Annotated[
    int,
    option("--max-queue", panel=HOW, metavar="N", min=1, max=10_000, help="Most pictures in the "
            "queue; further requests get status 429. Default: 64."),
]  # fmt: skip
StrictModel = Annotated[
    bool,
    option("--strict-model", panel=HOW, help="Refuse requests for another model. Default: draw "
            "them with the loaded one and say so in a header."),
]  # fmt: skip
Level = Annotated[
    LogLevel, option("--log-level", panel=TALK, help="What is logged. Default: warning.")
]
Open = Annotated[bool, option("--open", panel=WHERE, help="Open the page in the browser.")]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    allowed_origins: Origins = None,
    api_key: ApiKey = None,
    output: Folder = None,
    max_batch: MaxBatch = 16,
    max_queue: MaxQueue = 64,
    strict_model: StrictModel = False,
    log_level: Level = LogLevel.warning,
    open_: Open = False,
    *,
    where: RankFlags,
    choice: o.ModelChoice,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Start an image server: a web page and APIs for programs, with one model kept loaded."""
    if not installed("server"):
        raise UsageError(
            "The server needs starlette, uvicorn and python-multipart: "
            "pip install 'mlx-starflow[server]'."
        )
    from ..server.options import ServeOptions
    from ..server.run import Stopped, address, bind, check
    from ..server.run import serve as run

    options = ServeOptions(
        output=(output or default_folder()).expanduser().absolute(),
        host=host,
        port=port,
        allowed_origins=tuple(allowed_origins or ()),
        api_key=api_key or os.environ.get(KEY) or None,
        max_batch=max_batch,
        max_queue=max_queue,
        strict_model=strict_model,
        log_level=log_level.value,
    )
    where.start()
    console, group = Console(quiet), ranks()
    if group is not None and group.rank:
        with open_model(choice, console) as helper:
            agree_to_serve(group, helper)
            help_to_serve(group, helper)
        return
    check(options)
    with bind(options) as listening:
        page = address(listening)
        pipe = open_model(choice, console)

        def ready() -> None:
            console.say(f"Serving {pipe.config.name or pipe.name} at {page} (Ctrl-C ends it)")
            console.say(f"Pictures go to {options.output}")
            if open_:
                typer.launch(page)

        helpers = None
        if group is not None:
            agree_to_serve(group, pipe)
            helpers = RankHelpers(group)
        try:
            run(pipe, options, listening, ready, helpers)
        except Stopped as stopped:
            if group is not None:
                group.failed("the server was stopped", 0)
            if stopped.number == signal.SIGINT:
                raise Interrupted("Stopped; what was being drawn is cancelled.") from None
            if group is not None or not stopped.idle:
                sys.stdout.flush()
                os._exit(0)  # do not wait for a step that may take seconds
        pipe.close()


def default_folder() -> Path:
    """Pictures/mlx-starflow in the user's home directory."""
    return Path.home() / "Pictures" / "mlx-starflow"
