"""The window program of docs/apps.md runs, on a virtual display if there is no other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import mlx_starflow as sf
from mlx_starflow.generation import events

PAGE = Path(__file__).parents[1] / "docs" / "apps.md"


@pytest.fixture(scope="module")
def display():
    """$DISPLAY, or that of an Xvfb started for the test."""
    pytest.importorskip("tkinter")
    if os.environ.get("DISPLAY") or sys.platform == "darwin":
        yield
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no display and no Xvfb (apt install xvfb)")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24"],
        pass_fds=[writing], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading) as answer:
        os.environ["DISPLAY"] = f":{answer.readline().strip()}"
    yield
    del os.environ["DISPLAY"]
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def page() -> types.ModuleType:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[-1]
    module = types.ModuleType("apps_page")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    return module


def spin(window, until, seconds: float = 30.0) -> None:
    """Tk's loop, until something holds."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "the window did not get there in time"
        window.update()
        time.sleep(0.01)


def test_the_window_draws_previews_and_cancels(display, page, colours):
    with sf.load(colours) as pipe:
        window = page.Window(pipe)
        try:
            window.prompt.delete(0, "end")
            window.prompt.insert(0, "red")
            window.button.invoke()
            assert window.button["text"] == "Cancel"
            spin(window, lambda: not window.busy)
            assert window.title() == "Done"
            assert (window.image.width(), window.image.height()) == (page.SIDE, page.SIDE)

            window.button.invoke()
            window.button.invoke()
            spin(window, lambda: not window.busy)
            assert window.title() == "The work was cancelled."

            window.prompt.insert(0, "no such class ")
            window.button.invoke()
            spin(window, lambda: not window.busy)
            assert "is not a class of this model" in window.title()
        finally:
            window.destroy()


def test_the_table_of_events_is_complete():
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    kinds = {kind.__name__ for kind in events.Event.__subclasses__()}
    assert listed == kinds
