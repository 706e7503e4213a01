"""SHA-256 of the source files, and their inner checksums, computed during the conversion in another
thread instead of in a separate pass."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

from mlx_starflow.errors import CheckpointError

from .tensor_file import TensorFile

READ_BYTES = 8 << 20
MAX_LAG = 512 << 20  # bytes that the digest may be behind the converter


class RunningDigest:
    """Hashes files in a second thread, just behind the converter.

    The data that the converter has just read is still in the kernel's cache, so each file is read
    from the disk only once.
    """

    def __init__(self, files: Sequence[TensorFile]) -> None:
        paths = [file.path for file in files]
        self._paths = paths
        self._checks = [_Checksums(file) for file in files]
        self._hashes = [hashlib.sha256() for _ in paths]
        self._sizes = [p.stat().st_size for p in paths]
        self._total = sum(self._sizes)
        self._goal = self._done = 0
        self._error: OSError | CheckpointError | None = None
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def follow(self, file: int, position: int) -> None:
        """Tell the digest that the converter has read file number ``file`` up to ``position``.
        Waits if the digest is more than MAX_LAG behind."""
        with self._change:
            self._goal = max(self._goal, sum(self._sizes[:file]) + position)
            self._change.notify_all()
            while self._goal - self._done > MAX_LAG and self._thread.is_alive():
                self._change.wait(1.0)

    def finish(self) -> str:
        """Wait for the end. Returns the SHA-256 of the file in hex; for several files, that of the
        lines "digest  name".

        Errors: CheckpointError if a file became shorter, a checksum in it is wrong, or its SHA-256
        is not the one in its name in the hub's cache.
        """
        self.follow(0, self._total)
        self._thread.join()
        if self._error is not None:
            raise self._error
        digests = [h.hexdigest() for h in self._hashes]
        for path, found, check in zip(self._paths, digests, self._checks, strict=True):
            check.finish()
            named = path.resolve().name
            if re.fullmatch(r"[0-9a-f]{64}", named) and named != found:
                raise CheckpointError(
                    f"{path} is damaged: its SHA-256 has changed since it was downloaded. Remove "
                    f"{path.resolve()} and download it again."
                )
        if len(digests) == 1:
            return digests[0]
        lines = [f"{d}  {p.name}\n" for d, p in zip(digests, self._paths, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def cancel(self) -> None:
        """Stop hashing and end the thread."""
        with self._change:
            self._goal = -1
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            for file in zip(self._paths, self._sizes, self._hashes, self._checks, strict=True):
                if not self._hash(*file):
                    return
        except (OSError, CheckpointError) as error:
            self._error = error

    def _hash(self, path: Path, size: int, digest: hashlib._Hash, check: _Checksums) -> bool:
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
                    raise CheckpointError(f"{path} became shorter while it was being read.")
                digest.update(block)
                check.update(block)
                with self._change:
                    self._done += len(block)
                    self._change.notify_all()
        return True


class _Checksums:
    """Checks the CRC-32 of the entries of a zip archive while the file is read in order."""

    def __init__(self, file: TensorFile) -> None:
        self._path, self._entries = file.path, list(reversed(file.checksums))
        self._at = self._crc = 0

    def update(self, block: bytes) -> None:
        """Add the next bytes of the file. Errors: CheckpointError for a wrong checksum."""
        start, self._at = self._at, self._at + len(block)
        while self._entries:
            begin, end, _, _ = self._entries[-1]
            if begin >= self._at:
                break
            self._crc = zlib.crc32(block[max(begin - start, 0) : end - start], self._crc)
            if end > self._at:
                break
            self._compare()

    def finish(self) -> None:
        """Compare the remaining checksums. Errors: CheckpointError."""
        while self._entries:
            self._compare()

    def _compare(self) -> None:
        _, _, expected, name = self._entries.pop()
        found, self._crc = self._crc, 0
        if found != expected:
            raise CheckpointError(
                f"{self._path}: the checksum of {name!r} is wrong: the file is damaged. Download "
                "it again."
            )
