"""SHA-256 of the source, computed beside the conversion instead of in a pass of its own."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

READ_BYTES = 8 << 20
MAX_LAG = 512 << 20


class RunningDigest:
    """Hashes files in a second thread, following the converter through them.

    What the converter has just read is still in the kernel's cache, so each file is read from the
    disk once. ``follow`` says how far the converter is, and waits where the digest lags too far.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._hashes = [hashlib.sha256() for _ in paths]
        self._sizes = [p.stat().st_size for p in paths]
        self._total = sum(self._sizes)
        self._goal = self._done = 0
        self._error: OSError | None = None
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def follow(self, file: int, position: int) -> None:
        """The converter has read file number ``file`` up to ``position``."""
        with self._change:
            self._goal = max(self._goal, sum(self._sizes[:file]) + position)
            self._change.notify_all()
            while self._goal - self._done > MAX_LAG and self._thread.is_alive():
                self._change.wait(1.0)

    def finish(self) -> str:
        """The digest of the one file, or of the lines "digest  name" of several."""
        self.follow(0, self._total)
        self._thread.join()
        if self._error is not None:
            raise self._error
        digests = [h.hexdigest() for h in self._hashes]
        if len(digests) == 1:
            return digests[0]
        lines = [f"{d}  {p.name}\n" for d, p in zip(digests, self._paths, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def cancel(self) -> None:
        with self._change:
            self._goal = -1
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            for path, size, digest in zip(self._paths, self._sizes, self._hashes, strict=True):
                if not self._hash(path, size, digest):
                    return
        except OSError as error:
            self._error = error

    def _hash(self, path: Path, size: int, digest: hashlib._Hash) -> bool:
        start = self._done
        with path.open("rb", buffering=0) as file:
            while self._done < start + size:
                with self._change:
                    while 0 <= self._goal <= self._done:
                        self._change.wait()
                    if self._goal < 0:
                        return False
                    room = min(READ_BYTES, self._goal - self._done, start + size - self._done)
                block = os.read(file.fileno(), room)
                if not block:
                    raise OSError(f"{path} became shorter while it was being read")
                digest.update(block)
                with self._change:
                    self._done += len(block)
                    self._change.notify_all()
        return True
