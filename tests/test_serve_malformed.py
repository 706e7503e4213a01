"""Requests, forms and pictures that are malformed get their status and a JSON error."""

from __future__ import annotations

import json
import resource
import struct
import zlib
from functools import cache

import pytest
from PIL import Image
from serve_area import EDIT, GENERATE, PNG, SIDE, area, server, small, unharmed  # noqa: F401
from serving import errors_as_documented, png

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
        assert answer.status_code == 400 and says in errors_as_documented(answer)["message"]
