"""What ``mlx-starflow serve`` was asked, and the bounds of everything that clients send."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this computer and nothing else."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Limits:
    """Bounds of requests. What lies outside is refused before it costs memory or time."""

    json_bytes: int = 1 << 20  # of a body without pictures
    upload_bytes: int = 32 << 20  # of a body with pictures
    pixels: int = 16_000_000  # of a picture that is uploaded
    side: int = 2048  # pixels a side of a picture that is asked for
    prompt: int = 4000  # characters
    pictures: int = 10  # of one request
    best_of: int = 16
    frames: int = 24  # of an interpolation
    prompts: int = 16  # that a picture is scored under
    draws: int = 32  # of noise when a picture is scored
    headers: int = 100
    connections: int = 256
    head_seconds: float = 10.0  # a request's head has to arrive in this time
    body_seconds: float = 60.0  # and its body in this
    send_seconds: float = 60.0  # a client may leave a piece of an answer unread so long


@dataclass(frozen=True)
class ServeOptions:
    """The command line of the server."""

    output: Path  # pictures are written here and nowhere else
    host: str = "127.0.0.1"
    port: int = 8080  # 0: a free one
    allowed_origins: tuple[str, ...] = ()  # pages of other origins that may call; "*" for all
    api_key: str | None = None
    max_batch: int = 16  # pictures drawn together
    max_queue: int = 64  # pictures that may wait
    strict_model: bool = False  # refuse a model name that is not the loaded one's
    log_level: str = "warning"
    limits: Limits = field(default_factory=Limits)

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)
