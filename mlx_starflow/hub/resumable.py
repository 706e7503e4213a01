"""Downloads into the hub's cache that can be continued by a later process.

huggingface_hub continues a download after a broken connection, but its 2.x series deletes the
partial file when the process ends, so over a poor connection 15 GB may never arrive. Here the bytes
go to a partial file in the cache, named by the hash, and any later run continues it. The layout of
the cache is that of huggingface_hub: blobs named by hash, and snapshots made of links. Answers of
the hub are not trusted: sizes and hashes are checked.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import HubError
from ..files.fields import shown
from .cache import locked
from .integrity import Digest, file_fits, remember
from .requests import ShortAnswer, file_pieces

PARTIAL = ".resumable"
CHUNK = 1 << 20  # bytes that are hashed at a time
WAITS = (1.0, 3.0, 9.0)  # seconds before new attempts after failures without progress
MAX_ATTEMPTS = 100  # for one file in one run, even if each makes progress
_ETAG = re.compile(r"[A-Za-z0-9_-]{1,128}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Arrived = Callable[[int, int], None]  # receives the bytes done and the total


def fetch_file(repository: str, name: str, size: int, arrived: Arrived) -> Path:
    """Download a file into the hub's cache, or continue its download. Returns its path.

    ``size``: in bytes, from the repository's listing, 0 if unknown. ``arrived``: called with the
    progress. Errors: HubError if the file is not as announced; those of huggingface_hub and its
    HTTP client.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name)
    facts = get_hf_file_metadata(url)
    what = f"{name} of {repository}"
    if not facts.etag or facts.size is None or not facts.commit_hash:
        raise HubError(f"The hub does not give the size and the hash of {what}. Is it a model hub?")
    if not _ETAG.fullmatch(facts.etag) or not _COMMIT.fullmatch(facts.commit_hash):
        raise HubError(
            f"The hub's hash for {what}, {shown(facts.etag)}, is invalid; it was not downloaded."
        )
    if size and facts.size != size:
        raise HubError(
            f"The hub announces {what} with {facts.size} bytes, but its listing says {size}. "
            "Try again later."
        )
    blob = blobs_directory(repository) / facts.etag
    if not file_fits(blob, facts.etag):
        partial = blob.with_name(blob.name + PARTIAL)
        with locked(partial):
            if not file_fits(blob, facts.etag):  # else another process has just downloaded it
                blob.unlink(missing_ok=True)
                _fill(url, partial, facts, what, arrived)
                os.replace(partial, blob)
                remember(blob)
    return _place(repository, name, facts.commit_hash, blob)


def blobs_directory(repository: str) -> Path:
    """The directory of the hub's cache for the contents of a repository's files."""
    return _folder(repository) / "blobs"


def partial_bytes(repository: str) -> int:
    """Total size of incomplete downloads of a repository's files, which can be continued."""
    return sum(p.stat().st_size for p in blobs_directory(repository).glob("*" + PARTIAL))


def _folder(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def _place(repository: str, name: str, commit: str, blob: Path) -> Path:
    """Add a file to the snapshot of a commit, as a link to its blob, or as a copy if links are not
    supported. Returns its path. ``name`` must have been checked by ``download.check_name``."""
    folder = _folder(repository)
    path = folder / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.unlink(missing_ok=True)  # a broken link
        with suppress(FileExistsError):  # another process has just made it
            try:
                os.symlink(os.path.relpath(blob, path.parent), path)
            except (OSError, NotImplementedError) as error:
                if isinstance(error, FileExistsError):
                    raise
                shutil.copyfile(blob, path)
    reference = folder / "refs" / "main"
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    return path


def _fill(url: str, partial: Path, facts: Any, what: str, arrived: Arrived) -> None:
    """Complete the partial file and check its hash, with new attempts as long as it grows."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    size = facts.size
    with open(partial, "a+b") as file:
        if os.path.getsize(partial) > size:
            file.truncate(0)
        digest, done = _hashed(file, facts)
        # An attempt counts as failed unless it gets further than all before it.
        furthest, failed = done, 0
        arrived(done, size)
        for _ in range(MAX_ATTEMPTS):
            if done >= size:
                break
            before = done
            try:
                for start, piece in file_pieces(url, done, size):
                    if start == 0 and done > 0:  # the server sends the whole file again
                        file.truncate(0)
                        digest, done, before = Digest(facts.etag, size), 0, 0
                    file.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    arrived(done, size)
            except Exception as error:
                file.flush()
                if isinstance(error, ShortAnswer) and not error.measured and done > before:
                    file.truncate(before)  # the bytes may be those of another page
                    digest, done = _hashed(file, facts)
                failed = 0 if done > furthest else failed + 1
                furthest = max(furthest, done)
                if failed > len(WAITS) or not _passing(error):
                    raise
                time.sleep(WAITS[max(failed - 1, 0)])
        file.flush()
        os.fsync(file.fileno())
    if done < size:
        raise HubError(
            f"The download of {what} was interrupted {MAX_ATTEMPTS} times, last at {done} of "
            f"{size} bytes. Run the same command again: it continues."
        )
    if not digest.fits():
        partial.unlink()
        raise HubError(
            f"{what} arrived damaged: its {digest.name} is not that announced by the hub. "
            "Run the same command again: it downloads this file from the start."
        )


def _hashed(file: BinaryIO, facts: Any) -> tuple[Digest, int]:
    """The hash of a partial file so far, and its number of bytes."""
    digest = Digest(facts.etag, facts.size)
    file.seek(0)
    for piece in iter(lambda: file.read(CHUNK), b""):
        digest.update(piece)
    return digest, file.tell()


def _passing(error: Exception) -> bool:
    """Whether a new attempt may succeed: after a broken connection or an error of the server, but
    not after a refusal."""
    if isinstance(error, HubError):
        return False
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status >= 500 or status in (408, 429)
    if isinstance(error, ShortAnswer):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return isinstance(error, ConnectionError)  # not a full disk
    name = type(error).__module__.split(".")[0]
    return isinstance(error, (ConnectionError, TimeoutError)) or name.startswith(("http", "url"))
