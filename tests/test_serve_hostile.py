"""Hostile clients get an error with the right status, and the server continues to work."""

from __future__ import annotations

import resource
import socket
import time

import httpx
import pytest
from serve_area import EDIT, GENERATE, PNG, SIDE, area, server, small, unharmed  # noqa: F401
from serving import errors_as_documented, running

import mlx_starflow as sf
from mlx_starflow.server.options import Limits

TRICKS = ("../secret.png", "..%2fsecret.png", "%2e%2e/secret.png", "..\\secret.png", "/etc/passwd",
          "....//secret.png", ".hidden.png", "a/../../secret.png", "secret.png\0.png", "~/x.png",
          "C:\\x.png", "x.png/", "", ".", "..", "x" * 300 + ".png", "café.png", "-rf.png",
          "file:///etc/passwd", "${HOME}.png", "a\nb.png")  # fmt: skip


def test_path_tricks_in_every_text_field(server):
    for trick in TRICKS:
        for path in ("/files/", "/api/gallery/", "/page/"):
            try:
                answer = server.get(path + trick)
            except Exception as error:  # httpx refuses to send some of these
                assert "Invalid" in type(error).__name__ or "URL" in str(error)
                continue
            if answer.status_code == 200:  # the name was normalised to another route
                assert answer.headers["content-type"].startswith(("text/html", "application/json"))
                assert "secret" not in answer.text
            else:
                assert answer.status_code in (400, 404, 405)
        for path, field in (
            ("/api/score", "picture"),
            ("/api/vary", "picture"),
            ("/api/encode", "picture"),
        ):
            answer = server.post(path, {field: trick, "prompt": "red"})
            assert answer.status_code in (400, 404), (path, trick, answer.text)
        for fields in (("model", "user"), ("output_format",), ("response_format",), ("sampler",)):
            answer = server.post(GENERATE, {"prompt": "red"} | dict.fromkeys(fields, trick))
            assert answer.status_code in (200, 400), (fields, trick, answer.text)
            assert "\n" not in answer.headers.get("x-mlx-starflow-notice", "")
        answer = server.post(
            "/api/settings", files={"image": (trick.replace("\0", "") or "x", PNG)}
        )
        assert answer.json() == {"settings": None}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil",
             "", "a b", "[::1", "192.168.0.7", "127.0.0.1@evil.example"]
)  # fmt: skip
def test_a_host_that_is_another_computer_is_refused(server, host):
    """DNS rebinding: the page of a foreign name that now leads here."""
    for path in ("/", "/health", "/api/gallery"):
        answer = server.get(path, headers={"host": host})
        assert answer.status_code in (400, 403), (host, path)
    assert server.get("/health", headers={"host": "localhost:1"}).status_code == 200
    assert server.get("/health", headers={"host": "[::1]:8080"}).status_code == 200


def test_posts_of_other_origins_are_refused(server):
    body = {"prompt": "red"}
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": server.url.replace("http", "https") + ".evil"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert server.post(GENERATE, body, headers=headers).status_code == 403, headers
        assert server.client.delete("/api/gallery/a.png", headers=headers).status_code == 403
    assert server.get("/api/gallery", headers={"origin": "https://evil.example"}).status_code == 403
    answer = server.post(GENERATE, body, headers={"origin": server.url})
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
    preflight = server.client.options(GENERATE, headers={"origin": "https://evil.example"})
    assert preflight.status_code == 403


def test_origins_that_were_asked_for_may_call(small, area):
    with (
        sf.load(small) as pipe,
        running(pipe, area / "pictures", allowed_origins=("https://good.example",)) as server,
    ):
        headers = {"origin": "https://good.example"}
        preflight = server.client.options(GENERATE, headers=headers)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://good.example"
        assert server.get("/health", headers={"host": "good.example"}).status_code == 200
        assert server.get("/health", headers={"host": "evil.example"}).status_code == 403
        answer = server.post(GENERATE, {"prompt": "red"}, headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://good.example"
        refused = server.post(
            GENERATE, {"prompt": "red"}, headers={"origin": "https://evil.example"}
        )
        assert refused.status_code == 403


def test_the_key(small, area):
    with sf.load(small) as pipe, running(pipe, area / "pictures", api_key="secret") as server:
        for path in ("/", "/health", "/page/script.js", "/favicon.ico"):
            assert server.get(path).status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": ""},
                        {"authorization": "Bearer"}, {"authorization": "Basic !!!"},
                        {"authorization": "secret"}):  # fmt: skip
            for path in ("/api/gallery", "/v1/models", "/openapi.json", "/files/a.png?key=x"):
                answer = server.get(path, headers=headers)
                assert answer.status_code == 401, (headers, path)
                assert errors_as_documented(answer)["type"] == "authentication_error"
        headers = {"authorization": "Bearer secret"}
        answer = server.post(GENERATE, {"prompt": "red", "response_format": "url"}, headers=headers)
        url = answer.json()["data"][0]["url"]
        assert server.get(url).status_code == 200  # its address holds a key of its own
        assert server.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 401
        assert server.get("/api/gallery", headers={"x-api-key": "secret"}).status_code == 200


def raw(server, timeout: float = 5.0) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def test_a_gigabyte_is_not_read(server):
    with raw(server, 20) as connection:
        connection.sendall(
            b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 1073741824\r\n\r\n--x\r\n"
        )
        assert b" 413 " in connection.recv(200)
    sent = 0
    with raw(server, 20) as connection:  # the same without saying its length
        connection.sendall(
            b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            b'41\r\n--x\r\nContent-Disposition: form-data; name="image"; '
            b'filename="a"\r\n\r\n\r\n'
        )
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        try:
            for _ in range(1024):
                connection.sendall(piece)
                sent += 1 << 20
        except OSError:
            pass  # closed by the server
    assert sent < 200 << 20


def test_heads_and_headers_are_bounded(server):
    many = {f"x-{i}": "1" for i in range(120)}
    assert server.get("/health", headers=many).status_code == 431
    with raw(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000)
        assert connection.recv(200).startswith(b"HTTP/1.1 400")
    for garbage in (b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):  # fmt: skip
        with raw(server) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(300)
            assert not answer or answer.split(b" ")[1] in (b"400", b"403"), (garbage, answer)


IMPATIENT = Limits(head_seconds=0.5, body_seconds=0.5, connections=40)


def test_slow_clients_are_left(small, area):
    """A head or a body that comes one letter at a time ends after its time, not at its end."""
    with (
        sf.load(small) as pipe,
        running(pipe, area / "pictures", limits=IMPATIENT) as server,
    ):
        starts = (
            b"",
            b"GET /health HTTP/1.1\r\nHost: loc",
            b"POST /api/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        )
        for start in starts:
            began = time.monotonic()
            with raw(server, 10) as connection:
                connection.sendall(start)
                try:
                    for _ in range(200):
                        connection.settimeout(0.05)
                        try:
                            answer = connection.recv(300)
                            break
                        except TimeoutError:
                            connection.sendall(b"a" if start else b"")
                except OSError:
                    answer = b""
            assert time.monotonic() - began < 5
            assert not answer or b" 408 " in answer
        with raw(server, 10) as connection:  # the same on a connection that was used before
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(1000)
            assert b" 200 " in answer
            connection.sendall(b"GET /heal")
            time.sleep(0.3)
            began = time.monotonic()
            assert connection.recv(100) == b"" and time.monotonic() - began < 5


@pytest.mark.parametrize("most", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_idle_connections_do_not_keep_others_out(small, area, most):
    """Many more than are allowed: the limit holds, and a new client is answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(most, hard - 200 if hard != resource.RLIM_INFINITY else most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 200), hard))
    idle = []
    try:
        with (
            sf.load(small) as pipe,
            running(pipe, area / "pictures", limits=Limits(connections=40)) as server,
        ):
            for _ in range(wanted):
                connection = raw(server)
                idle.append(connection)
                if len(idle) % 500 == 0:
                    assert httpx.get(f"{server.url}/health").status_code == 200
            with httpx.Client(base_url=server.url, timeout=60) as fresh:
                assert fresh.post(GENERATE, json={"prompt": "red"}).status_code == 200
            alive = 0
            for connection in idle:
                connection.setblocking(False)
                try:
                    alive += connection.recv(1) != b""
                except BlockingIOError:
                    alive += 1
                except OSError:
                    pass
            assert alive <= 41
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_those_who_leave_at_any_moment_leave_nothing(server):
    head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n"
    whole = head + b'{"prompt": "red", "n": 10    }'
    for length in range(0, len(whole) + 1, 7):
        with raw(server) as connection:
            connection.sendall(whole[:length])
    deadline = time.monotonic() + 20
    while any(server.get("/api/queue").json()[k] for k in ("waiting", "drawing")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
