"""Large files into the hub's cache, in a way that survives the process.

huggingface_hub continues a broken connection while its process lives, but the 2.x series throws
the partial file away when it ends, which over a poor connection means never getting 15 GB. Here
the bytes go to a partial file beside their final place, named by their hash, and any later run
continues it. Addresses, credentials and the cache's layout are huggingface_hub's.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import HubError
from .cache import locked

PARTIAL = ".resumable"
WAITS = (1.0, 3.0, 9.0)  # seconds before each new attempt while nothing arrives
CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")

Arrived = Callable[[int, int], None]  # bytes here, bytes in all


def fetch_blob(repository: str, name: str, arrived: Arrived) -> None:
    """Bring a file's content into the hub's cache, continuing what an earlier run left.

    The file itself appears in the cache when ``hf_hub_download`` is called afterwards, which then
    has nothing to transfer. Does nothing where the hub does not tell the file's hash and size.
    Errors: those of huggingface_hub and its HTTP client; HubError for content with another hash.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name)
    facts = get_hf_file_metadata(url)
    if not facts.etag or not facts.size or not re.fullmatch(r"[\w.-]+", facts.etag):
        return
    blob = blobs_directory(repository) / facts.etag
    if blob.is_file():
        return
    partial = blob.with_name(blob.name + PARTIAL)
    with locked(partial):
        if blob.is_file():  # another process has just brought it
            return
        digest = _fill(url, partial, facts.size, arrived)
        if _SHA256.fullmatch(facts.etag) and digest != facts.etag:
            partial.unlink()
            raise HubError(
                f"{name} of {repository} arrived damaged: its SHA-256 is not what the hub says. "
                "Run the same command again: it starts this file anew."
            )
        os.replace(partial, blob)


def blobs_directory(repository: str) -> Path:
    """Where the hub's cache keeps the contents of a repository's files."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "blobs"


def partial_bytes(repository: str) -> int:
    """Bytes that broken downloads of a repository's files have left, to be continued."""
    return sum(p.stat().st_size for p in blobs_directory(repository).glob("*" + PARTIAL))


def _fill(url: str, partial: Path, size: int, arrived: Arrived) -> str:
    """Complete the partial file; the SHA-256 of the whole. Tries again while something arrives."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open(partial, "a+b") as file:
        if os.path.getsize(partial) > size:
            file.truncate(0)
        file.seek(0)
        for piece in iter(lambda: file.read(CHUNK), b""):
            digest.update(piece)
        done, attempt = file.tell(), 0
        arrived(done, size)
        while done < size:
            before = done
            try:
                for start, piece in _pieces(url, done):
                    if start == 0 and done > 0:  # the server begins again from the start
                        file.truncate(0)
                        digest, done = hashlib.sha256(), 0
                    file.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    arrived(done, size)
            except Exception as error:
                file.flush()
                attempt = 0 if done > before else attempt + 1
                if attempt > len(WAITS) or not _passing(error):
                    raise
                time.sleep(WAITS[max(attempt - 1, 0)])
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _pieces(url: str, begin: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of a file from a byte on, each with the byte that the answer began at."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    # Compressed answers would have other lengths and ranges than the file.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={begin}-"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as answer:
        hf_raise_for_status(answer)
        start = begin if answer.status_code == 206 else 0
        for piece in answer.iter_raw(CHUNK):
            yield start, piece
            start = begin + 1  # only the first piece can begin anew


def _passing(error: Exception) -> bool:
    """Whether trying again may help: a broken connection, a hub in trouble, not a refusal."""
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status >= 500 or status in (408, 429)
    if isinstance(error, OSError) and error.errno is not None:
        return isinstance(error, ConnectionError)  # not a full disk
    name = type(error).__module__.split(".")[0]
    return isinstance(error, (ConnectionError, TimeoutError)) or name.startswith(("http", "url"))
