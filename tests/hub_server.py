"""A model hub on loopback with as much of the protocol as huggingface_hub's client speaks.

It can break a connection in the middle of a file, stall, refuse, and be asked what it was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

Lie = Callable[[BaseHTTPRequestHandler, bytes, int], None]  # handler, honest bytes, first byte
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Request:
    method: str
    path: str
    start: int  # first byte asked for
    token: str | None


@dataclass
class Hub:
    """Repositories ("owner/name" -> file name -> bytes) and how to misbehave."""

    repositories: dict[str, dict[str, bytes]]
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)  # repository or file
    breaks: dict[str, list[int]] = field(default_factory=dict)  # file -> bytes before each break
    stalls: dict[str, int] = field(default_factory=dict)  # file -> bytes before silence
    without_ranges: set[str] = field(default_factory=set)  # always answered from their first byte
    vanished: set[str] = field(default_factory=set)  # listed, and then not there
    token: str | None = None  # the one that is let in
    etags: dict[str, str] = field(default_factory=dict)  # file -> another hash than its own
    lies: dict[str, Lie] = field(default_factory=dict)  # file, or "listing" -> the answer to GET
    sizes: dict[str, int] = field(default_factory=dict)  # file -> the size that is listed
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stalls.clear()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0]
        bounds = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(bounds[1]) if bounds else 0
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, path, start, token))
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/\w+)?", path)
        resolved = re.fullmatch(r"/([^/]+/[^/]+)/resolve/\w+/(.+)", path)
        if not (listing or resolved):
            return self._refuse(404, "", with_body)
        repository = (listing or resolved)[1]
        refusal = self.hub.refusals.get(repository)
        if refusal:
            return self._refuse(*refusal, with_body)
        if self.hub.token is not None and token != self.hub.token:
            return self._refuse(401, "GatedRepo", with_body)
        files = self.hub.repositories.get(repository)
        if files is None:
            return self._refuse(404 if token else 401, "RepoNotFound", with_body)
        if listing:
            if "listing" in self.hub.lies and with_body:
                return self.hub.lies["listing"](self, b"", 0)
            return self._json(_info(repository, files, self.hub.sizes), with_body)
        name = resolved[2]
        refusal = self.hub.refusals.get(name)
        if refusal:
            return self._refuse(*refusal, with_body)
        if name not in files or name in self.hub.vanished:
            return self._refuse(404, "EntryNotFound", with_body)
        start = 0 if name in self.hub.without_ranges else start
        return self._file(name, files[name], start, with_body)

    def _file(self, name: str, data: bytes, start: int, with_body: bool) -> None:
        if name in self.hub.lies and with_body:
            return self.hub.lies[name](self, data, start)
        self.send_response(206 if start else 200)
        etag = self.hub.etags.get(name, hashlib.sha256(data).hexdigest())
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not with_body:
            return
        breaks = self.hub.breaks.get(name)
        if breaks:
            self.wfile.write(data[start : start + breaks.pop(0)])
            self._cut()
        elif name in self.hub.stalls:
            self.wfile.write(data[start : start + self.hub.stalls[name]])
            self.wfile.flush()
            while name in self.hub.stalls:
                time.sleep(0.02)
            self._cut()
        else:
            self.wfile.write(data[start:])

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()

    def _json(self, value: object, with_body: bool) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, with_body: bool) -> None:
        body = json.dumps({"error": code or "refused"}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _info(repository: str, files: dict[str, bytes], sizes: dict[str, int]) -> dict:
    return {
        "_id": "0" * 24,
        "id": repository,
        "modelId": repository,
        "sha": COMMIT,
        "private": False,
        "tags": [],
        "downloads": 0,
        "siblings": [
            {"rfilename": name, "size": sizes.get(name, len(data)), "blobId": "0" * 40}
            for name, data in files.items()
        ],
    }
