"""Limits on the number of connections and on the time for a request's head.

Uvicorn limits the time between requests and the size of a head. Without the limits here, a client
could open connections and send nothing, or a head one byte at a time, and hold them for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .options import Limits

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    b"retry-after: 5\r\nconnection: close\r\n\r\n"
    b'{"error": {"message": "Too many connections.", "type": "server_error", '
    b'"param": null, "code": "too_many_connections"}}'
)


def bounded_protocol(limits: Limits, most: int) -> type[H11Protocol]:
    """A protocol class for uvicorn with these limits and at most ``most`` connections."""

    class BoundedProtocol(H11Protocol):
        """Closes idle connections if there are too many, and those whose head is late."""

        _head_timer: asyncio.TimerHandle | None = None
        _opened = 0.0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._opened = self.loop.time()
            if len(self.connections) > most and not self._make_room():
                transport.write(BUSY)
                transport.close()
                return
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_watching()
            super().connection_lost(exc)

        def is_idle(self) -> bool:
            """Whether no request is being answered."""
            return self.cycle is None or bool(self.cycle.response_complete)

        def drop(self) -> None:
            """Close the connection at once."""
            if self.transport is not None and not self.transport.is_closing():
                self.transport.abort()

        def _make_room(self) -> bool:
            """Close the idle connection that has been open longest. Returns whether there was
            one."""
            idle = [
                c
                for c in self.connections
                if c is not self and isinstance(c, BoundedProtocol) and c.is_idle()
            ]
            if not idle:
                return False
            oldest = min(idle, key=lambda c: c._opened)
            self.connections.discard(oldest)
            oldest.drop()
            return True

        def _watch(self) -> None:
            """Start the timer while a head is awaited; stop it while a request is answered."""
            if not self.is_idle():
                self._stop_watching()
            elif self._head_timer is None and self.conn.our_state is not h11.ERROR:
                self._head_timer = self.loop.call_later(limits.head_seconds, self._late)

        def _stop_watching(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _late(self) -> None:
            self._head_timer = None
            if self.is_idle():
                self.drop()

    return BoundedProtocol
