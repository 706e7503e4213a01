"""Starting and stopping the server."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from ..errors import UsageError
from ..pipeline import Pipeline
from .app import build
from .connections import bounded_protocol
from .helpers import Helpers
from .options import ServeOptions
from .studio import Studio

GRACE = 1.0  # seconds for responses to end after a signal
STOPPING = 0.5  # seconds for the drawing thread to end after that
HEAD_BYTES = 32 * 1024  # most bytes of a request's head
SPARE_FILES = 128  # file descriptors that are not used for connections


class Stopped(Exception):
    """A signal ended the server. ``number``: of the signal. ``idle``: all work has ended."""

    def __init__(self, number: int, idle: bool) -> None:
        super().__init__(number, idle)
        self.number, self.idle = number, idle


def check(options: ServeOptions) -> None:
    """Check the options. Errors: UsageError for unsafe or impossible ones."""
    if not options.on_loopback and not options.api_key:
        raise UsageError(
            f"--host {options.host} allows access from other computers: give --api-key, or set "
            "MLX_STARFLOW_API_KEY."
        )
    if options.api_key is not None and not (options.api_key.isascii() and options.api_key):
        raise UsageError("--api-key must be a text of ASCII characters.")
    if options.output.exists() and not options.output.is_dir():
        raise UsageError(f"--output {options.output} is a file; expected a directory.")
    for origin in options.allowed_origins:
        if origin != "*" and ("://" not in origin or origin.endswith("/")):
            raise UsageError(
                f"--allowed-origins {origin}: expected an origin such as https://example.org."
            )


def bind(options: ServeOptions) -> socket.socket:
    """Open the listening socket, before the model is loaded. Errors: UsageError."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # With the protocol, asyncio sends small answers at once (TCP_NODELAY); without, 40 ms later.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{options.host}:{options.port} cannot be used ({reason}); choose another --port, or "
            "end the program that uses it."
        ) from None
    return listening


def address(listening: socket.socket) -> str:
    """The URL of the page."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def serve(
    pipe: Pipeline,
    options: ServeOptions,
    listening: socket.socket,
    ready: Callable[[], None] = lambda: None,
    helpers: Helpers | None = None,
) -> None:
    """Run the server until a signal arrives, then raise ``Stopped``. ``ready`` is called in its own
    thread when the server answers requests. ``helpers``: others that draw parts of batches."""
    studio = Studio(pipe, options, helpers)
    server = make_server(studio, ready)
    studio.start()
    try:
        server.run(sockets=[listening])
    finally:
        studio.stop()
        idle = studio.close(STOPPING)
    if server.signal is not None:
        raise Stopped(server.signal, idle)


def make_server(studio: Studio, ready: Callable[[], None] = lambda: None) -> Server:
    """The uvicorn server with this package's settings and limits."""
    options = studio.options
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = min(options.limits.connections, max(files - SPARE_FILES, 16))
    config = uvicorn.Config(
        build(studio),
        http=bounded_protocol(options.limits, most),
        ws="none",
        lifespan="off",
        log_level=options.log_level,
        access_log=options.log_level in ("debug", "trace"),
        timeout_keep_alive=5,
        timeout_graceful_shutdown=max(1, round(GRACE)),
        h11_max_incomplete_event_size=HEAD_BYTES,
        server_header=False,
        proxy_headers=False,
    )
    return Server(config, studio, ready)


class Server(uvicorn.Server):
    """Uvicorn's server, which also cancels the drawing when a signal arrives."""

    def __init__(self, config: uvicorn.Config, studio: Studio, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._studio, self._ready = studio, ready
        self.signal: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        threading.Thread(target=self._ready, daemon=True).start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As in uvicorn, but the signals are not raised again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.signal = self.signal or sig
        self.force_exit = self.should_exit
        self.should_exit = True
        self._studio.stop()
