"""A server with a small model in a directory of its own, which every test must leave unharmed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from serving import picture, png, serving

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
def small(few_tokens) -> Path:
    """The model of colours with 9 tokens: a picture is drawn after every test."""
    return few_tokens


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
