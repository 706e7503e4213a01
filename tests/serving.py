"""A server in a thread of the tests' own process, and what clients of it need."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.pipeline import Pipeline

pytest.importorskip("uvicorn", reason="the extra [server] is not installed")

from mlx_starflow.server.options import Limits, ServeOptions
from mlx_starflow.server.run import address, bind, make_server
from mlx_starflow.server.studio import Studio


@dataclasses.dataclass
class Running:
    """A running server."""

    url: str
    studio: Studio
    client: httpx.Client

    def post(self, path: str, json=None, **more) -> httpx.Response:
        return self.client.post(path, json=json, **more)

    def get(self, path: str, **more) -> httpx.Response:
        return self.client.get(path, **more)

    def events(self, path: str, json=None, **more) -> Iterator[tuple[str, dict]]:
        """The server-sent events of a request, as they come."""
        with self.client.stream("POST", path, json=json, **more) as answer:
            assert answer.status_code == 200, answer.read()
            yield from events_in(answer)


def events_in(answer: httpx.Response) -> Iterator[tuple[str, dict]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@contextlib.contextmanager
def running(
    pipe: Pipeline, folder: Path, limits: Limits | None = None, **options
) -> Iterator[Running]:
    options = ServeOptions(folder, port=0, limits=limits or Limits(), **options)
    with bind(options) as listening:
        studio = Studio(pipe, options)
        ready = threading.Event()
        server = make_server(studio, ready.set)
        studio.start()
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        assert ready.wait(30)
        url = address(listening)
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            try:
                yield Running(url, studio, client)
            finally:
                server.should_exit = True
                studio.stop()
                thread.join(10)
                studio.close(10)
                assert not thread.is_alive()


@contextlib.contextmanager
def serving(model: Path | None, folder: Path, **options) -> Iterator[Running]:
    with sf.load(model) as pipe, running(pipe, folder, **options) as server:
        yield server


def picture(data: str | bytes) -> Image.Image:
    """A picture from base64 or bytes."""
    image = Image.open(BytesIO(base64.b64decode(data) if isinstance(data, str) else data))
    image.load()
    return image


def png(image: Image.Image) -> bytes:
    content = BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def errors_as_documented(answer: httpx.Response) -> dict:
    """The error of an answer, which has to have the form of the OpenAI API."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and isinstance(error["type"], str)
    return error
