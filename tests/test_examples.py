"""The scripts of examples/ run on a small model; CITATION.cff is complete."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "draw": ['"a fox in snow"', "--seed", "7", "--count", "2", "--output", "foxes"],
    "name_pictures": ["foxes/7.png", "--captions", "a fox in snow", "a cat in snow"],
    "between": ["a fox in snow", "--seeds", "1", "2", "--frames", "3", "--output", "between.gif"],
}


def test_every_example_is_tested():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(COMMANDS)


@pytest.fixture
def example(sentences, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> list[str]:
        arguments = [name, *COMMANDS[name], "--model", str(sentences)]
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_the_examples_run(example, tmp_path):
    assert example("draw")[-2:] == ["foxes/7.png", "foxes/8.png"]
    [named] = example("name_pictures")
    assert named.startswith("foxes/7.png: a ") and named.endswith("%)")
    assert example("between") == ["between.gif"]
    with Image.open(tmp_path / "between.gif") as animation:
        assert animation.n_frames == 4


def test_the_citation_is_complete():
    data = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert data["cff-version"] == "1.2.0" and data["title"] == "mlx-starflow"
    assert data["authors"] and data["license"] == "MIT" and len(data["references"]) == 3
