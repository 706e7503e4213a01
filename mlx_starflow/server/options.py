"""The options of ``mlx-starflow serve``, and the limits on requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path


def is_loopback(host: str) -> bool:
    """Whether a name or an address is a loopback address of this computer."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Limits:
    """Limits on requests, which are checked before a request takes memory or time."""

    json_bytes: int = 1 << 20  # of a body without pictures
    upload_bytes: int = 32 << 20  # of a body with pictures
    pixels: int = 16_000_000  # of an uploaded picture
    side: int = 2048  # pixels along one side of a requested picture
    prompt: int = 4000  # characters
    pictures: int = 10  # in one request
    best_of: int = 16
    frames: int = 24  # in an interpolation
    prompts: int = 16  # for scoring a picture
    draws: int = 32  # noise draws for scoring a picture
    headers: int = 100  # in one request
    connections: int = 256  # at the same time
    head_seconds: float = 10.0  # for the arrival of a request's head
    body_seconds: float = 60.0  # for the arrival of its body
    send_seconds: float = 60.0  # for the client to read a piece of the response


@dataclass(frozen=True)
class ServeOptions:
    """The options of the server."""

    output: Path  # directory for pictures; nothing is written elsewhere
    host: str = "127.0.0.1"
    port: int = 8080  # 0: a free one
    allowed_origins: tuple[str, ...] = ()  # other origins whose pages may call; "*" for all
    api_key: str | None = None
    max_batch: int = 16  # pictures in one batch
    max_queue: int = 64  # pictures in the queue
    strict_model: bool = False  # refuse requests that name another model
    log_level: str = "warning"
    limits: Limits = field(default_factory=Limits)

    @property
    def on_loopback(self) -> bool:
        """Whether the server can only be reached from this computer."""
        return is_loopback(self.host)
