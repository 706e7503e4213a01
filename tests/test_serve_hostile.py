"""Hostile clients get an error with the right status, and the server continues to work."""

from __future__ import annotations

import json
import re
import resource
import socket
import struct
import time
import zlib
from functools import cache
from pathlib import Path

import httpx
import pytest
from bundles import colours_bundle
from PIL import Image
from serving import errors_as_documented, picture, png, running, serving

import mlx_starflow as sf
from mlx_starflow.server.options import Limits

SIDE = 6  # of the small model's pictures


@pytest.fixture(scope="module")
def area(tmp_path_factory) -> Path:
    """A directory with the output folder in it, and what must not be touched beside it."""
    made = tmp_path_factory.mktemp("area")
    (made / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(made / "secret.png")
    return made


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The model of colours with 9 tokens: a picture is drawn after every test."""
    return colours_bundle(tmp_path_factory.mktemp("bundles") / "small", grid_size=3)


@pytest.fixture(scope="module")
def server(small, area):
    with serving(small, area / "pictures", limits=Limits(pixels=1_000_000)) as server:
        yield server


@pytest.fixture(autouse=True)
def unharmed(server, area):
    """After every test: nothing lies outside the folder, and a picture is still drawn."""
    yield
    assert {p.name for p in area.iterdir()} == {"pictures", "secret.png"}
    assert all(re.fullmatch(r"[\w.-]+\.(png|jpg|webp)", p.name) for p in
               (area / "pictures").iterdir())  # fmt: skip
    answer = server.post("/v1/images/generations", {"prompt": "red"})
    assert picture(answer.json()["data"][0]["b64_json"]).size == (SIDE, SIDE)


PNG = png(Image.new("RGB", (SIDE, SIDE)))
GENERATE, EDIT = "/v1/images/generations", "/v1/images/edits"

# name -> (path, body, status, part of the message or code). A body of bytes is sent as JSON.
MALFORMED = {
    "no body": (GENERATE, b"", 400, "JSON"),
    "no JSON": (GENERATE, b"hello", 400, "JSON"),
    "half a JSON": (GENERATE, b'{"prompt": "red"', 400, "JSON"),
    "a list": (GENERATE, b'["red"]', 400, "object"),
    "a number": (GENERATE, b"7", 400, "object"),
    "null": (GENERATE, b"null", 400, "object"),
    "no text of any encoding": (GENERATE, b'{"prompt": "\xff\xfe"}', 400, "UTF-8"),
    "nested too deep": (GENERATE, b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "deep"),
    "many brackets": (GENERATE, b"[" * 900_000, 400, "invalid_json"),
    "too many values": (GENERATE, b'{"a":[' + b"1," * 50_000 + b"1]}", 400, "values"),
    "a key twice": (GENERATE, b'{"prompt":"red","prompt":"blue"}', 400, "twice"),
    "NaN": (GENERATE, b'{"prompt":"red","guidance":NaN}', 400, "NaN"),
    "infinity": (GENERATE, b'{"prompt":"red","guidance":1e999}', 400, "too large"),
    "a number of 5,000 digits": (
        GENERATE,
        b'{"prompt":"red","seed":' + b"9" * 5000 + b"}",
        400,
        "digits",
    ),
    "a body too large": (
        GENERATE,
        b'{"prompt":"' + b"x" * (2 << 20) + b'"}',
        413,
        "body_too_large",
    ),
    "no prompt": (GENERATE, {}, 400, "prompt is missing"),
    "an empty prompt": (GENERATE, {"prompt": ""}, 400, "prompt is missing"),
    "a prompt of null": (GENERATE, {"prompt": None}, 400, "prompt is missing"),
    "a prompt that is a number": (GENERATE, {"prompt": 7}, 400, "a text"),
    "a prompt that is a list": (GENERATE, {"prompt": ["red"]}, 400, "a text"),
    "a prompt that is an object": (GENERATE, {"prompt": {"a": 1}}, 400, "a text"),
    "a long prompt": (GENERATE, {"prompt": "x" * 4001}, 400, "at most 4000"),
    "a prompt with a zero byte": (GENERATE, {"prompt": "red\0"}, 400, "control"),
    "half a surrogate pair": (GENERATE, b'{"prompt":"red\\ud800"}', 400, "control"),
    "no pictures": (GENERATE, {"prompt": "red", "n": 0}, 400, "from 1 to 10"),
    "too many pictures": (GENERATE, {"prompt": "red", "n": 11}, 400, "from 1 to 10"),
    "pictures below zero": (GENERATE, {"prompt": "red", "n": -1}, 400, "from 1 to 10"),
    "half a picture": (GENERATE, {"prompt": "red", "n": 1.5}, 400, "from 1 to 10"),
    "true pictures": (GENERATE, {"prompt": "red", "n": True}, 400, "from 1 to 10"),
    "pictures in words": (GENERATE, {"prompt": "red", "n": "two"}, 400, "from 1 to 10"),
    "a seed too large": (GENERATE, {"prompt": "red", "seed": 2**32}, 400, "4294967295"),
    "a seed below zero": (GENERATE, {"prompt": "red", "seed": -2}, 400, "4294967295"),
    "a size in words": (GENERATE, {"prompt": "red", "size": "large"}, 400, "512x512"),
    "a huge size": (GENERATE, {"prompt": "red", "size": "99999x99999"}, 400, "2048"),
    "a size of nothing": (GENERATE, {"prompt": "red", "size": "0x0"}, 400, "16"),
    "a size of letters": (GENERATE, {"prompt": "red", "size": "١٢٨x١٢٨"}, 400, "512x512"),
    "a format": (GENERATE, {"prompt": "red", "output_format": "exe"}, 400, "png"),
    "a response": (GENERATE, {"prompt": "red", "response_format": "xml"}, 400, "b64_json"),
    "a compression": (GENERATE, {"prompt": "red", "output_compression": 101}, 400, "100"),
    "a background": (GENERATE, {"prompt": "red", "background": "transparent"}, 400, "opaque"),
    "a quality": (GENERATE, {"prompt": "red", "quality": "best"}, 400, "standard"),
    "partial images": (GENERATE, {"prompt": "red", "partial_images": 9}, 400, "from 0 to 3"),
    "guidance below zero": (GENERATE, {"prompt": "red", "guidance": -1}, 400, "from 0 to 100"),
    "guidance in words": (GENERATE, {"prompt": "red", "guidance": "much"}, 400, "a number"),
    "a sampler": (GENERATE, {"prompt": "red", "sampler": "euler"}, 400, "sequential"),
    "steps": (GENERATE, {"prompt": "red", "steps": 0}, 400, "from 1"),
    "steps for the sequential sampler": (
        GENERATE,
        {"prompt": "red", "sampler": "sequential", "steps": 3},
        400,
        "sequential",
    ),
    "the best of many": (GENERATE, {"prompt": "red", "best_of": 1000}, 400, "from 1 to 16"),
    "the best of several, several": (
        GENERATE,
        {"prompt": "red", "best_of": 2, "n": 2},
        400,
        "n out",
    ),
    "a stream in words": (GENERATE, {"prompt": "red", "stream": "perhaps"}, 400, "true or false"),
    "a shape": ("/api/generate", {"prompt": "red", "aspect_ratio": "7:1"}, 400, "21:9"),
    "an edit without a picture": (EDIT, {"prompt": "red"}, 400, "image is missing"),
    "a picture of nowhere": ("/api/score", {"picture": "none.png"}, 404, "no picture"),
    "no picture at all": ("/api/score", {"prompt": "red"}, 400, "name in the gallery"),
    "too many prompts": (
        "/api/score",
        {"picture": "a.png", "prompt": ["red"] * 99},
        400,
        "at most 16",
    ),
    "one frame": ("/api/interpolate", {"seed": 1, "frames": 1}, 400, "from 2 to 24"),
    "a strength": ("/api/vary", {"picture": "a.png", "strength": 7}, 404, "no picture"),
    "pictures for the web UI": (
        "/sdapi/v1/txt2img",
        {"prompt": "red", "batch_size": 9, "n_iter": 9},
        400,
        "at most 10",
    ),
    "a width for the web UI": ("/sdapi/v1/txt2img", {"prompt": "red", "width": 1e9}, 400, "2048"),
    "nothing for the web UI": ("/sdapi/v1/txt2img", {}, 400, "prompt is missing"),
    "an address that is none": ("/v1/chat/completions", {"prompt": "red"}, 404, "nothing at this"),
    "a method that is none": ("/health", {}, 405, "another HTTP method"),
}


def test_malformed_requests_get_their_status_and_a_json_error(server):
    assert len(MALFORMED) >= 60
    for name, (path, body, status, says) in MALFORMED.items():
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = server.client.post(
            path, content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == status, (name, answer.text)
        error = errors_as_documented(answer)
        assert says in f"{error['message']} {error['code']}", (name, error)
    assert server.get("/api/queue").json()["waiting"] == 0


FORMS = {
    "a form without a boundary": (b"x", "multipart/form-data", 400),
    "a form that ends early": (b'--x\r\nContent-Disposition: form-data; name="image"; '
                               b'filename="a"\r\n\r\nab', "multipart/form-data; boundary=x", 400),
    "a part without a name": (b"--x\r\nContent-Type: a\r\n\r\nb\r\n--x--\r\n",
                              "multipart/form-data; boundary=x", 400),
    "another encoding": (b"--x--\r\n", "multipart/form-data; boundary=x; charset=idna", 400),
    "many fields": (b"".join(b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n' % i
                             for i in range(200)) + b"--x--\r\n",
                    "multipart/form-data; boundary=x", 400),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_malformed_forms(server, name):
    content, kind, status = FORMS[name]
    answer = server.client.post(EDIT, content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    errors_as_documented(answer)


@cache
def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be huge: its pixels are a few kilobytes of compressed zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))  # fmt: skip

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(min((width * 3 + 1) * height, 50_000_000)), 9)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data)
            + chunk(b"IEND", b""))  # fmt: skip


def frames() -> bytes:
    from io import BytesIO

    content = BytesIO()
    rows = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "lime", "blue")]
    rows[0].save(content, format="WEBP", save_all=True, append_images=rows[1:])
    return content.getvalue()


PICTURES = {  # name -> (what makes it, status)
    "a bomb of 100 gigapixels": (lambda: bomb(400_000, 250_000), 400),
    "a bomb of 16 megapixels": (lambda: bomb(4000, 4000), 413),
    "cut off": (lambda: png(Image.effect_noise((64, 64), 50))[:900], 400),
    "empty": (lambda: b"", 400),
    "text": (lambda: b"not a picture", 400),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", 400),
    "SVG": (
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        400,
    ),
    "animated": (frames, 400),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("path", [EDIT, "/v1/images/variations", "/api/score", "/api/encode"])
def test_pictures_that_are_none_or_too_large(server, path, name):
    make, status = PICTURES[name]
    data = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = server.post(path, data={"prompt": "red"}, files={"image": ("a.png", data)})
    assert answer.status_code == status, answer.text
    assert errors_as_documented(answer)["message"]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 200, f"{grown:.0f} MB more"


def test_masks_that_do_not_fit(server):
    for mask, says in (
        (PNG, "opaque"),
        (png(Image.new("RGBA", (5, 5))), "must have the same size"),
    ):
        answer = server.post(
            EDIT, data={"prompt": "red"}, files={"image": ("a", PNG), "mask": ("m", mask)}
        )
        if says == "opaque":
            assert answer.status_code in (200, 400)  # black without transparency: nothing white
        assert answer.status_code == 400 and says in errors_as_documented(answer)["message"]


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
