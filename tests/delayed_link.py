"""A network link with a delay, in user space, for kernels without netem: packets between two TUN
devices are handed over after the delay."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import threading
import time
from collections import deque

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
LARGEST = 65_536  # bytes of a packet


class DelayedLink:
    """Two network devices; what is sent to one comes out of the other ``delay`` seconds later."""

    def __init__(self, names: tuple[str, str], delay: float) -> None:
        self._delay, self._files = delay, [_device(name) for name in names]
        self._open = True
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._open = False
        self._thread.join(5)
        for file in self._files:
            os.close(file)

    def _carry(self) -> None:
        waiting: deque[tuple[float, int, bytes]] = deque()
        while self._open:
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, file, packet = waiting.popleft()
                with contextlib.suppress(OSError):  # the device is not up yet
                    os.write(file, packet)
            left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.05
            ready, _, _ = select.select(self._files, [], [], left)
            for file in ready:
                with contextlib.suppress(OSError):
                    packet = os.read(file, LARGEST)
                    other = self._files[1 - self._files.index(file)]
                    waiting.append((time.monotonic() + self._delay, other, packet))


def _device(name: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return file
