"""Checks of every request before it reaches a route: host, origin, API key, sizes and times."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import error_answer
from .errors import RequestError
from .gallery import Gallery
from .options import ServeOptions, is_loopback

SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = re.compile(r"/(health|favicon\.ico|page/[a-z]+\.(js|css|svg))?")  # need no API key
FILE = re.compile(r"/files/([^/]+)")
BODY_OF_FORM = "multipart/form-data"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
)
CLOSING = (403, 408, 413, 431)  # after these the connection is closed
LINGER_BYTES, LINGER_SECONDS = 64 << 20, 2.0  # limits for reading the body of a refused request
METHODS = b"GET, POST, DELETE, OPTIONS"
HEADERS = b"authorization, content-type, x-api-key"


class Guard:
    """An ASGI application that checks requests and passes them on to another one."""

    def __init__(self, app: ASGIApp, options: ServeOptions, gallery: Gallery) -> None:
        self._app, self._options, self._gallery = app, options, gallery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _Headers(scope)
        origin = headers.get("origin")
        allowed = origin is not None and self._may_call(origin)
        sender = _Sender(send, self._options.limits.send_seconds, origin if allowed else None)
        try:
            self._check(scope, headers, allowed)
            if scope["method"] == "OPTIONS" and allowed:
                await sender.preflight()
                return
            bounded = _Receiver(receive, self._most(headers), self._options.limits.body_seconds)
            await self._app(scope, bounded, sender)
        except RequestError as error:
            if not sender.began:
                await _linger(receive, headers)
                await error_answer(error)(scope, receive, sender)
        except TimeoutError:
            return  # the client does not read, so no response can be sent

    def _check(self, scope: Scope, headers: _Headers, allowed: bool) -> None:
        options, limits = self._options, self._options.limits
        if len(scope["headers"]) > limits.headers:
            raise RequestError(431, f"A request may have at most {limits.headers} headers.")
        host = headers.get("host") or ""
        if headers.count("host") > 1 or not self._is_here(host):
            raise RequestError(403, "The Host header names another computer.", code="foreign_host")
        origin = headers.get("origin")
        cross = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if not allowed and (
            (origin is not None and not _same(origin, host))
            or (cross and scope["method"] not in SAFE)
        ):
            raise RequestError(
                403,
                "Pages of other origins may not call this server. To allow them, start it with "
                "--allowed-origins.",
                code="foreign_origin",
            )
        if options.api_key is not None and scope["method"] != "OPTIONS":
            self._check_key(scope, headers, options.api_key)
        length = headers.get("content-length")
        most = self._most(headers)
        if length is not None and (not length.isdecimal() or int(length[:20]) > most):
            raise RequestError(
                413, f"The body may have at most {most} bytes.", code="body_too_large"
            )

    def _is_here(self, host: str) -> bool:
        """Whether a Host header names this server; this prevents DNS rebinding. On addresses other
        than loopback every name is accepted, since an API key is needed there."""
        name = _host_name(host)
        if name is None:
            return False
        if host in {urlsplit(origin).netloc for origin in self._options.allowed_origins}:
            return True  # a TLS proxy that passes on its own name
        return not self._options.on_loopback or is_loopback(name)

    def _may_call(self, origin: str) -> bool:
        return "*" in self._options.allowed_origins or origin in self._options.allowed_origins

    def _check_key(self, scope: Scope, headers: _Headers, key: str) -> None:
        path = scope["path"]
        if scope["method"] in SAFE and OPEN.fullmatch(path):
            return
        match = FILE.fullmatch(path)
        if match and scope["method"] in SAFE:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[0]
            if given.isascii() and self._gallery.opens(match[1], given):
                return
        told = _keys(headers)
        if not told:
            raise RequestError(401, "An API key is needed: Authorization: Bearer KEY.")
        if not any(hmac.compare_digest(one.encode(), key.encode()) for one in told):
            raise RequestError(401, "The API key is wrong.", code="invalid_api_key")

    def _most(self, headers: _Headers) -> int:
        limits = self._options.limits
        form = (headers.get("content-type") or "").lower().startswith(BODY_OF_FORM)
        return limits.upload_bytes if form else limits.json_bytes


async def _linger(receive: Receive, headers: _Headers) -> None:
    """Read the body of a refused request, within limits: a client that is still sending when the
    connection is closed would not see the response."""
    if headers.get("content-length") in (None, "0") and headers.get("transfer-encoding") is None:
        return
    read = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while read < LINGER_BYTES:
                message = await receive()
                read += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


class _Headers:
    """The headers of a request."""

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self._raw = scope["headers"]

    def get(self, name: str) -> str | None:
        key = name.encode()
        return next((v.decode("latin-1") for k, v in self._raw if k == key), None)

    def count(self, name: str) -> int:
        return sum(1 for k, _ in self._raw if k == name.encode())


class _Receiver:
    """Receives a body, with limits on bytes and time."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._most = receive, most
        self._bytes = 0
        self._until = asyncio.get_running_loop().time() + seconds
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise RequestError(408, "The body arrived too slowly.", code="too_slow") from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._bytes > self._most:
                raise RequestError(
                    413, f"The body may have at most {self._most} bytes.", code="body_too_large"
                )
        return message


class _Sender:
    """Sends a response with the common headers. Raises TimeoutError if the client does not read."""

    def __init__(self, send: Send, seconds: float, origin: str | None) -> None:
        self._send, self._seconds, self._origin = send, seconds, origin
        self.began = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            more = self._more()
            if message["status"] in CLOSING:  # the rest of the body is not read
                more.append((b"connection", b"close"))
            message = {**message, "headers": [*message.get("headers", []), *more]}
        async with asyncio.timeout(self._seconds):
            await self._send(message)

    async def preflight(self) -> None:
        """Answer a CORS preflight request."""
        headers = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", HEADERS),
            (b"access-control-max-age", b"600"),
            (b"content-length", b"0"),
        ]
        await self({"type": "http.response.start", "status": 204, "headers": headers})
        await self({"type": "http.response.body", "body": b""})

    def _more(self) -> list[tuple[bytes, bytes]]:
        more = list(ALWAYS)
        if self._origin is not None:
            more = [pair for pair in more if pair[0] != b"cross-origin-resource-policy"]
            more += [
                (b"access-control-allow-origin", self._origin.encode("latin-1")),
                (b"vary", b"Origin"),
            ]
        return more


def _host_name(host: str) -> str | None:
    """The name in a Host header, without port; None if it is malformed."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?", host)
    return (match[1] or match[2]).lower() if match else None


def _same(origin: str, host: str) -> bool:
    """Whether an Origin header is that of this server's page."""
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _keys(headers: _Headers) -> list[str]:
    """The API keys in the headers: Bearer, X-API-Key, or the password of Basic."""
    found = [headers.get("x-api-key") or ""]
    kind, _, value = (headers.get("authorization") or "").partition(" ")
    if kind.lower() == "bearer":
        found.append(value.strip())
    elif kind.lower() == "basic":
        with contextlib.suppress(binascii.Error, ValueError):
            found.append(base64.b64decode(value, validate=True).decode().partition(":")[2])
    return [key for key in found if key]
