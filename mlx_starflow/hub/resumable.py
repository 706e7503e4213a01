"""Files into the hub's cache, in a way that survives the process and believes no answer.

huggingface_hub continues a broken connection while its process lives, but the 2.x series throws
the partial file away when it ends, which over a poor connection means never getting 15 GB. Here
the bytes go to a partial file beside their final place, named by their hash, and any later run
continues it. The cache's layout is huggingface_hub's: blobs by hash, and snapshots of links.
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
from .requests import CHUNK, ShortAnswer, file_pieces

PARTIAL = ".resumable"
WAITS = (1.0, 3.0, 9.0)  # seconds before each new attempt while nothing arrives
MAX_ATTEMPTS = 100  # for one file in one run, though each of them brings something
_ETAG = re.compile(r"[A-Za-z0-9_-]{1,128}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Arrived = Callable[[int, int], None]  # bytes here, bytes in all


def fetch_file(repository: str, name: str, size: int, arrived: Arrived) -> Path:
    """Path of a file in the hub's cache, with its content brought there or continued.

    ``size``: as the list of the repository has it, 0 if that does not say. Errors: HubError for a
    file that is not what was announced; those of huggingface_hub and its HTTP client.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name)
    facts = get_hf_file_metadata(url)
    what = f"{name} of {repository}"
    if not facts.etag or facts.size is None or not facts.commit_hash:
        raise HubError(f"The hub does not say the size and hash of {what}. Is it a model hub?")
    if not _ETAG.fullmatch(facts.etag) or not _COMMIT.fullmatch(facts.commit_hash):
        raise HubError(
            f"The hub gives {what} the hash {shown(facts.etag)}, which is none; it is not fetched."
        )
    if size and facts.size != size:
        raise HubError(
            f"The hub announces {what} with {facts.size} bytes, and its list says {size}. "
            "Try again later."
        )
    blob = blobs_directory(repository) / facts.etag
    if not file_fits(blob, facts.etag):
        partial = blob.with_name(blob.name + PARTIAL)
        with locked(partial):
            if not file_fits(blob, facts.etag):  # else another process has just brought it
                blob.unlink(missing_ok=True)
                _fill(url, partial, facts, what, arrived)
                os.replace(partial, blob)
                remember(blob)
    return _place(repository, name, facts.commit_hash, blob)


def blobs_directory(repository: str) -> Path:
    """Where the hub's cache keeps the contents of a repository's files."""
    return _folder(repository) / "blobs"


def partial_bytes(repository: str) -> int:
    """Bytes that broken downloads of a repository's files have left, to be continued."""
    return sum(p.stat().st_size for p in blobs_directory(repository).glob("*" + PARTIAL))


def _folder(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def _place(repository: str, name: str, commit: str, blob: Path) -> Path:
    """The file in the snapshot of a commit: a link to its content, or a copy where there are no
    links. ``name`` has passed ``download.check_name``."""
    folder = _folder(repository)
    path = folder / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.unlink(missing_ok=True)  # a link whose content is gone
        with suppress(FileExistsError):  # another process has just done it
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
    """Complete the partial file and check its hash. Tries again while something arrives."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    size = facts.size
    with open(partial, "a+b") as file:
        if os.path.getsize(partial) > size:
            file.truncate(0)
        digest, done = _hashed(file, facts)
        # An attempt counts as failed unless it gets further than any before it.
        furthest, failed = done, 0
        arrived(done, size)
        for _ in range(MAX_ATTEMPTS):
            if done >= size:
                break
            before = done
            try:
                for start, piece in file_pieces(url, done, size):
                    if start == 0 and done > 0:  # the server begins again from the start
                        file.truncate(0)
                        digest, done, before = Digest(facts.etag, size), 0, 0
                    file.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    arrived(done, size)
            except Exception as error:
                file.flush()
                if isinstance(error, ShortAnswer) and not error.measured and done > before:
                    file.truncate(before)  # a page of another kind, as likely as the file
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
            f"{what} broke off {MAX_ATTEMPTS} times, last at {done} of {size} bytes. Run the same "
            "command again: it continues."
        )
    if not digest.fits():
        partial.unlink()
        raise HubError(
            f"{what} arrived damaged: its {digest.name} is not what the hub says. "
            "Run the same command again: it starts this file anew."
        )


def _hashed(file: BinaryIO, facts: Any) -> tuple[Digest, int]:
    """The hash of what is in a partial file so far, and how many bytes that are."""
    digest = Digest(facts.etag, facts.size)
    file.seek(0)
    for piece in iter(lambda: file.read(CHUNK), b""):
        digest.update(piece)
    return digest, file.tell()


def _passing(error: Exception) -> bool:
    """Whether trying again may help: a broken connection, a hub in trouble, not a refusal."""
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
