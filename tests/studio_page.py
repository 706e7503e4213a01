"""The page of a running server in a browser, with a gallery of pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser import Watched, chromium
from serving import serving

import mlx_starflow as sf

PROMPTS = (
    "a red mushroom in a meadow",
    "a boat on a lake at night",
    "a house in a forest",
    "a cat on a beach",
    "a fox in snow",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A gallery with a few pictures of the embedded model."""
    made = tmp_path_factory.mktemp("pictures")
    with sf.load() as pipe:
        result = pipe.generate(list(PROMPTS), seed=[3, 5, 4, 2, 7])
    for i in range(len(PROMPTS)):
        result.save(i, made / f"picture-{i}.png")
        os.utime(made / f"picture-{i}.png", (1_700_000_000 + i,) * 2)
    return made


@pytest.fixture(scope="module")
def server(folder):
    with serving(None, folder) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def watched(browser, server):
    made = Watched(browser, server.url)
    yield made
    made.check()
    made.context.close()


@pytest.fixture
def page(watched):
    return watched.page
