"""Requests to the hub, within limits of bytes, time and host: whatever answers may be lying.

Addresses, credentials and the HTTP client are huggingface_hub's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from ..errors import HubError
from ..files.json import JSONError, parse_object

MAX_LISTING = 32 << 20  # bytes of the answer that lists a repository
MAX_ERROR = 64 << 10  # bytes that are read of an answer that says what is wrong
LISTING_SECONDS = 60.0
SLOW_SECONDS, SLOW_BYTES = 60.0, 64 << 10  # less than this in that time counts as a broken answer
CHUNK = 1 << 20


class ShortAnswer(ConnectionError):
    """The answer is not the part of the file that was asked for, or ended early.

    ``measured``: it announced the right length, so that what arrived is the file's beginning.
    """

    def __init__(self, message: str, measured: bool = True) -> None:
        super().__init__(message)
        self.measured = measured


def get_listing(repository: str) -> dict[str, Any]:
    """What the hub says of a repository, files with sizes included. Errors: HubError, and those of
    huggingface_hub."""
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/models/{repository}"
    began, data = time.monotonic(), bytearray()
    with _answer(url, {}, params={"blobs": "true"}) as answer:
        for piece in answer.iter_bytes(CHUNK):
            data += piece
            if len(data) > MAX_LISTING or time.monotonic() - began > LISTING_SECONDS:
                raise HubError(
                    f"The hub's list of the files of {repository} does not end (after "
                    f"{len(data) >> 20} MiB). Is {constants.ENDPOINT} a model hub?"
                )
    try:
        return parse_object(bytes(data), MAX_LISTING)
    except JSONError as error:
        raise HubError(
            f"The hub's answer about {repository} is not what a model hub says ({error}). "
            "Is there a login page between you and the network?"
        ) from None


def file_pieces(url: str, begin: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of a file of ``size`` bytes from a byte on, each with the byte it begins at; the first
    one begins at 0 where the server starts again. Never more than ``size`` bytes in all.

    Errors: ShortAnswer for anything but these bytes, HubError for more of them, and those of
    huggingface_hub and its HTTP client.
    """
    # Compressed answers would have other lengths and ranges than the file.
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={begin}-"}
    with _answer(url, headers) as answer:
        start = _start(answer, begin, size)
        began, arrived = time.monotonic(), 0
        for piece in answer.iter_raw(CHUNK):
            if start + len(piece) > size:
                raise HubError(
                    f"The hub sends more than the {size} bytes that it announced for {url}. "
                    "Try again later, or from another network."
                )
            yield start, piece
            start, arrived = start + len(piece), arrived + len(piece)
            seconds = time.monotonic() - began
            if seconds > SLOW_SECONDS:
                if arrived < SLOW_BYTES:
                    raise ShortAnswer(f"only {arrived} bytes arrived in {seconds:.0f} s")
                began, arrived = time.monotonic(), 0
    if start < size:
        measured = answer.headers.get("Content-Length") is not None
        raise ShortAnswer(f"the answer ended at byte {start} of {size}", measured)


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str], **options: Any) -> Iterator[Any]:
    """An answer that is no refusal and came over a connection as safe as the one asked for."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    # The client sends the token to the host of the address alone, not to where it is redirected.
    everything = {**build_hf_headers(), **headers}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=everything, timeout=timeout, **options) as answer:
        if answer.url.scheme != "https" and url.startswith("https:"):
            raise HubError(f"The hub leads from {url} to {answer.url.scheme}: it is not followed.")
        if answer.status_code >= 400:
            hf_raise_for_status(_shortened(answer))
        yield answer


def _shortened(answer: Any) -> Any:
    """The same refusal with at most the beginning of its text."""
    text = b""
    with contextlib.suppress(Exception):
        for piece in answer.iter_raw(4096):
            text += piece
            if len(text) > MAX_ERROR:
                text = b""
                break
    kept = {k: v for k, v in answer.headers.items() if k.lower() not in _LENGTHS}
    return type(answer)(answer.status_code, headers=kept, content=text, request=answer.request)


_LENGTHS = ("content-length", "content-encoding", "transfer-encoding")


def _start(answer: Any, begin: int, size: int) -> int:
    """The byte that an answer begins at: ``begin``, or 0 for the whole. Errors: ShortAnswer."""
    length = answer.headers.get("Content-Length")
    if answer.status_code == 206:
        said = answer.headers.get("Content-Range", "")
        if not said.replace(" ", "").startswith(f"bytes{begin}-"):
            raise ShortAnswer(f"asked for byte {begin}, the answer holds {said[:80]!r}")
        rest = size - begin
    elif answer.status_code == 200:
        begin, rest = 0, size
    else:
        raise ShortAnswer(f"the answer has the unexpected status {answer.status_code}")
    if length is not None and length != str(rest):
        raise ShortAnswer(f"the answer has {length[:20]} bytes where {rest} belong")
    return begin
