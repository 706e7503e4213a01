"""Requests to the hub, with limits on bytes, time and host, since its answers are not trusted.

Addresses, credentials and the HTTP client are those of huggingface_hub.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from ..errors import HubError
from ..files.json import JSONError, parse_object

MAX_LISTING = 32 << 20  # most bytes of a repository's listing
MAX_ERROR = 64 << 10  # most bytes of an error message
LISTING_SECONDS = 60.0  # most seconds for a listing
SLOW_SECONDS, SLOW_BYTES = 60.0, 64 << 10  # fewer bytes than this in this time: broken connection


class ShortAnswer(ConnectionError):
    """The answer is not the requested part of the file, or ended early.

    ``measured``: the answer announced the right length, so the bytes that arrived can be kept.
    """

    def __init__(self, message: str, measured: bool = True) -> None:
        super().__init__(message)
        self.measured = measured


def get_listing(repository: str) -> dict[str, Any]:
    """The hub's description of a repository, with its files and their sizes. Errors: HubError, and
    those of huggingface_hub."""
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/models/{repository}"
    began, data = time.monotonic(), bytearray()
    with _answer(url, {}, params={"blobs": "true"}) as answer:
        # Pieces as they arrive: larger ones would be waited for, however slowly they come.
        for piece in answer.iter_bytes():
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
            f"The hub's answer about {repository} is not that of a model hub ({error}). "
            "Does your network need a login?"
        ) from None


def file_pieces(url: str, begin: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Download a file of ``size`` bytes from byte ``begin`` on. Yields pieces, each with its offset
    in the file. The first offset is 0 if the server sends the whole file again.

    Errors: ShortAnswer if the answer is not this part of the file, HubError if it has more bytes,
    and those of huggingface_hub and its HTTP client.
    """
    # Without compression, which would change lengths and ranges.
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={begin}-"}
    with _answer(url, headers) as answer:
        start = _start(answer, begin, size)
        began, arrived = time.monotonic(), 0
        for piece in answer.iter_raw():  # as they arrive, as above
            if start + len(piece) > size:
                raise HubError(
                    f"The hub sent more than the {size} bytes that it announced for {url}. "
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
    """A successful answer to a GET request. A redirection from https to another scheme is an
    error."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    # The client sends the token to the host in the URL only, not to hosts it is redirected to.
    everything = {**build_hf_headers(), **headers}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=everything, timeout=timeout, **options) as answer:
        if answer.url.scheme != "https" and url.startswith("https:"):
            raise HubError(
                f"The hub redirects from {url} to {answer.url.scheme}, which is not encrypted and "
                "therefore not followed."
            )
        if answer.status_code >= 400:
            hf_raise_for_status(_shortened(answer))
        yield answer


def _shortened(answer: Any) -> Any:
    """The same error answer, without its text if that is longer than MAX_ERROR."""
    text = b""
    with contextlib.suppress(Exception):
        began = time.monotonic()
        for piece in answer.iter_raw():
            text += piece
            if len(text) > MAX_ERROR or time.monotonic() - began > LISTING_SECONDS:
                text = b""
                break
    kept = {k: v for k, v in answer.headers.items() if k.lower() not in _LENGTHS}
    return type(answer)(answer.status_code, headers=kept, content=text, request=answer.request)


_LENGTHS = ("content-length", "content-encoding", "transfer-encoding")


def _start(answer: Any, begin: int, size: int) -> int:
    """The offset at which an answer begins: ``begin``, or 0 for the whole file. Errors:
    ShortAnswer."""
    length = answer.headers.get("Content-Length")
    if answer.status_code == 206:
        said = answer.headers.get("Content-Range", "")
        if not said.replace(" ", "").startswith(f"bytes{begin}-"):
            raise ShortAnswer(f"byte {begin} was requested, but the answer has {said[:80]!r}")
        rest = size - begin
    elif answer.status_code == 200:
        begin, rest = 0, size
    else:
        raise ShortAnswer(f"the answer has the unexpected status {answer.status_code}")
    if length is not None and length != str(rest):
        raise ShortAnswer(f"the answer has {length[:20]} bytes instead of {rest}")
    return begin
