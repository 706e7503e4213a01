"""How ranks find each other: rank 0 listens, the others connect, all within a time limit."""

from __future__ import annotations

import platform
import socket
import time
from dataclasses import dataclass

from ..errors import StarflowError
from .messages import Connection
from .place import Place

PATIENCE = 20.0  # seconds until all ranks must be there
RETRY = 0.05


@dataclass(frozen=True)
class Peer:
    """Another rank."""

    rank: int
    host: str  # the name of its machine
    link: Connection

    def __str__(self) -> str:
        return f"Rank {self.rank} ({self.host})"


def meet(place: Place, patience: float = PATIENCE) -> list[Peer]:
    """The peers that this rank is connected to: for rank 0 all others in order, for the others
    rank 0. Errors: StarflowError naming the ranks that did not come in time."""
    until = time.monotonic() + patience
    return _listen(place, until) if place.rank == 0 else [_connect(place, until)]


def _listen(place: Place, until: float) -> list[Peer]:
    found: dict[int, Peer] = {}
    try:
        server = socket.create_server((place.host, place.port), backlog=place.size)
    except OSError as error:
        raise StarflowError(
            f"Rank 0 cannot listen on {place.host}, port {place.port} ({error.strerror}): is "
            "another job running there? Choose another --starting-port of mlx.launch."
        ) from None
    with server:
        while len(found) < place.size - 1:
            server.settimeout(max(0.01, until - time.monotonic()))
            try:
                link = Connection(server.accept()[0])
                peer = _greeted(link, place, until)
            except TimeoutError:
                missing = [str(r) for r in range(1, place.size) if r not in found]
                raise StarflowError(
                    f"Rank {', '.join(missing)} did not connect to rank 0 at {place.host}, port "
                    f"{place.port}. Is mlx-starflow of the same version installed there, and the "
                    "port open?"
                ) from None
            except OSError:
                continue
            if peer is not None and peer.rank not in found:
                found[peer.rank] = peer
    for peer in found.values():
        peer.link.send("welcome", {"host": platform.node()})
    return [found[rank] for rank in sorted(found)]


def _greeted(link: Connection, place: Place, until: float) -> Peer | None:
    """The peer that has connected; None for anything else that has."""
    link.limit(max(0.01, min(2.0, until - time.monotonic())))
    try:
        hello = link.receive()
    except (OSError, StarflowError):
        hello = None
    rank = hello.data.get("rank") if hello is not None and hello.kind == "hello" else None
    if hello is None or type(rank) is not int or not 0 < rank < place.size:
        link.close()
        return None
    link.limit(None)
    return Peer(rank, str(hello.data.get("host", ""))[:100], link)


def _connect(place: Place, until: float) -> Peer:
    while True:
        try:
            left = max(0.01, until - time.monotonic())
            raw = socket.create_connection((place.host, place.port), timeout=min(left, 2.0))
            link = Connection(raw)
            link.send("hello", {"rank": place.rank, "host": platform.node()})
            link.limit(max(0.01, until - time.monotonic()))
            welcome = link.receive()
            if welcome is not None and welcome.kind == "welcome":
                link.limit(None)
                return Peer(0, str(welcome.data.get("host", ""))[:100], link)
            link.close()
        except (OSError, StarflowError):
            pass
        if time.monotonic() + RETRY > until:
            raise StarflowError(
                f"Rank {place.rank} ({platform.node()}) could not reach rank 0 at {place.host}, "
                f"port {place.port}."
            )
        time.sleep(RETRY)
