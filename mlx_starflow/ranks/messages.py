"""Messages between ranks: a JSON object and any number of byte strings, over a TCP connection."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StarflowError
from ..files.json import parse_object

MAX_HEADER = 64 << 20  # bytes of JSON
MAX_BLOB = 1 << 36  # bytes of one byte string
MAX_BLOBS = 1 << 20


@dataclass(frozen=True)
class Message:
    """What one rank says to another."""

    kind: str
    data: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


class Connection:
    """One end of a TCP connection. Messages may be sent from any thread; one thread receives."""

    def __init__(self, link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.settimeout(None)
        self._link, self._sending = link, threading.Lock()
        self.sent_messages = self.sent_bytes = 0

    def send(
        self, kind: str, data: dict[str, Any] | None = None, blobs: Sequence[bytes] = ()
    ) -> None:
        """Send one message. Errors: OSError if the connection is lost."""
        text = json.dumps({"kind": kind, "data": data or {}, "blobs": [len(b) for b in blobs]})
        packed = struct.pack("<I", len(text)) + text.encode("ascii")
        with self._sending:
            self._link.sendall(packed)
            for blob in blobs:
                self._link.sendall(blob)
            self.sent_messages += 1
            self.sent_bytes += len(packed) + sum(map(len, blobs))

    def receive(self) -> Message | None:
        """The next message; None at the end of the connection. Errors: OSError, StarflowError for
        bytes that are no message."""
        head = self._exactly(4)
        if head is None:
            return None
        (length,) = struct.unpack("<I", head)
        if length > MAX_HEADER:
            raise StarflowError("A rank sent something that is no message.")
        text = self._exactly(length)
        if text is None:
            return None
        try:
            found = parse_object(text, MAX_HEADER, MAX_HEADER)
            kind, data, sizes = str(found["kind"]), dict(found["data"]), list(found["blobs"])
            wrong = len(sizes) > MAX_BLOBS or any(
                type(n) is not int or not 0 <= n <= MAX_BLOB for n in sizes
            )
        except (ValueError, KeyError, TypeError, StarflowError):
            wrong = True
        if wrong:
            raise StarflowError("A rank sent something that is no message.")
        blobs = []
        for size in sizes:
            blob = self._exactly(size)
            if blob is None:
                return None
            blobs.append(blob)
        return Message(kind, data, tuple(blobs))

    def limit(self, seconds: float | None) -> None:
        """The longest time that ``receive`` and ``send`` wait; None: without limit."""
        self._link.settimeout(seconds)

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()

    def _exactly(self, count: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < count:
            part = self._link.recv(min(count - len(parts), 1 << 20))
            if not part:
                return None
            parts += part
        return bytes(parts)
