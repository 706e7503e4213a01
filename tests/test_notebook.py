"""A notebook displays results, and the progress of ``generate``."""

from __future__ import annotations

import io
import sys
import types

import pytest
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.generation.progress import Share, in_notebook


@pytest.fixture(scope="module")
def pipe(colours):
    with sf.load(colours) as pipe:
        yield pipe


def test_a_result_is_a_picture(pipe):
    result = pipe.generate("red", seed=1)
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert shown.format == "PNG" and shown.tobytes() == result.images[0].tobytes()
    several = Image.open(io.BytesIO(pipe.generate("red", seed=1, num_images=3)._repr_png_()))
    assert several.size == (24, 24)
    assert repr(result) == "Result(1 of 12x12, prompts=['red'], seeds=[1])"


def test_the_share_rises_from_nothing_to_all(pipe):
    share = Share()
    shares = [share.after(event) for event in pipe.stream("red", seed=1)]
    assert shares == sorted(shares) and shares[-1] == 1 and len(set(shares)) > 5


def test_progress_is_shown_when_asked_for(pipe, capfd):
    pipe.generate("red", seed=1)
    assert capfd.readouterr() == ("", "")
    result = pipe.generate("red", seed=1, progress=True)
    shown = capfd.readouterr()
    assert shown.out == "" and "%|" in shown.err
    assert result.images[0].tobytes() == pipe.generate("red", seed=1).images[0].tobytes()


def test_a_notebook_is_told_apart(pipe, monkeypatch, capfd):
    assert not in_notebook()
    kernel = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    assert in_notebook()
    pipe.generate("red", seed=1)
    assert "%|" in capfd.readouterr().err
    pipe.generate("red", seed=1, progress=False)
    assert capfd.readouterr().err == ""
    terminal = type("TerminalInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: terminal))
    assert not in_notebook()
