"""Every snippet of the README and of docs/ is run as it stands there, or its reason not to be is
given here. What the README's commands need is made by its earlier commands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
from bundles import clips_bundle
from command import run  # noqa: F401
from conftest import case_dir
from PIL import Image
from teaching import pictures

import mlx_starflow as sf
from mlx_starflow.hub.locate import EMBEDDED

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SIDE = 32  # of the tiny model's pictures
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NOT_RUN = {  # beginning of a line -> why it is not run here
    "make ": "sets up an environment; continuous integration runs make demo and the tests",
    "python3 -m venv": "sets up an environment",
    ". .venv": "sets up an environment",
    "pip install": "sets up an environment",
    "python tests/serve_load.py": "measures a server under load for minutes",
    "python -m recipes": "takes hours, and the recipe's own weights",
    "mlx-starflow serve": "serves until it is stopped; its own tests run it",
    "mlx-starflow mcp": "serves until it is stopped; its own tests run it",
    "mlx.launch": "starts ranks on other machines",
    "mlx-starflow generate --prompt-file prompts.txt --seed 7 --": "starts ranks; their tests do",
    'mlx-starflow generate "a fox in snow" --seed 7 --json --ranks': "the same",
    'mlx-starflow generate "a fox in snow" --seed 7 --ranks': "the same",
    'mlx-starflow encode fox.png --prompt "a fox in snow" --ranks': "the same",
    "mlx-starflow train --data my-drawings --ranks": "the same",
    "mlx-starflow doctor --ranks": "the same",
    "mlx-starflow doctor --hostfile": "the same",
    "mlx-starflow benchmark": "takes minutes; its flags are checked and its own tests run it",
    "cmake ": "needs a compiler; tests/test_export_native.py builds and runs the program",
    "build/starflow": "the same",
    "mlx-starflow convert CHECKPOINT.pth": "a synopsis",
    "[--": "more of the synopsis",
}
# The tiny model's pictures are a quarter as large as the embedded model's, and fewer will do.
SMALLER = {
    "32,32,64,64": "8,8,16,16",
    "--auto-seeds 24": "--auto-seeds 20",
    "--best-of 8": "--best-of 2",
    "--seconds 5": "--seconds 3",
    "--frames 161": "--frames 41",
}
TEXT = ("weights     MB", "mlx_starflow/")  # blocks that show results or a map
# Blocks of CONTRIBUTING.md are templates, which tests/test_extending.py follows.
TEMPLATES = ("your_sampler", "your_command")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, textwrap.dedent(text)) for _, language, text in found]


def commands(text: str) -> list[str]:
    """The lines of a block, continued ones joined and comments taken off."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


def reason(line: str) -> str | None:
    return next((why for begin, why in NOT_RUN.items() if line.startswith(begin)), None)


SHELL = [(p.name, text) for p in PAGES for language, text in blocks(p)
         if language == "" and not text.startswith(TEXT)]  # fmt: skip
PYTHON = [(p.name, text) for p in PAGES for language, text in blocks(p)
          if language == "python" and not any(t in text for t in TEMPLATES)]  # fmt: skip


@pytest.fixture(scope="module")
def films(sentences, tmp_path_factory):
    """A tiny model of clips from sentences, which stands for starflow-v."""
    return clips_bundle(tmp_path_factory.mktemp("bundles") / "films", sentences, window=21)


@pytest.fixture
def place(sentences, films, tmp_path, monkeypatch):
    """A directory in which tiny models replace the embedded ones."""
    monkeypatch.setitem(EMBEDDED, "default", sentences)
    monkeypatch.setitem(EMBEDDED, "clips", films)
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "my-drawings", 6, 64)
    pictures(tmp_path / "my-cat", 6, 64, captions=False)
    return tmp_path


def carry_out(line: str, run, place: Path, films: Path) -> None:  # noqa: F811
    if reason(line) or "--follow" in line:  # follows a folder until it is stopped
        return
    if not line.startswith("mlx-starflow "):
        subprocess.run(line, shell=True, check=True, cwd=place)
        return
    for written, smaller in SMALLER.items():
        line = line.replace(written, smaller)
    for part in line.split(" && "):
        words = shlex.split(part)[1:]
        flow = case_dir("t2i_tiny")
        given = {
            "checkpoint.pth": flow / "checkpoint.pth", "model.yaml": flow / "config.yaml",
            "stabilityai/sd-vae-ft-ema": case_dir("vae_tiny"),
            "google/flan-t5-xl": case_dir("t5_tiny"),
            "starflow-v": films,
        }  # fmt: skip
        if words[0] == "video":
            pytest.importorskip("av", reason="the extra [video] is not installed")
        if words[0] == "train":  # hundreds of steps, or here a few
            words += ["--iters", "2", "--batch-size", "2", "--previews", "1"]
        outcome = run(*(given.get(word, word) for word in words))
        fine = (0, 3) if "watch check" in part else (0,)  # 3: a picture is unusual
        assert outcome.status in fine, f"{part}\n{outcome.err}"


def test_the_walk_of_the_readme_works_to_the_letter(run, place, films, monkeypatch):  # noqa: F811
    """All commands of the README, one after another, in an empty directory."""
    monkeypatch.setattr("typer.launch", lambda path: 0)
    lines = [line for page, text in SHELL if page == "README.md" for line in commands(text)]
    assert sum(line.startswith("mlx-starflow") for line in lines) > 15
    for line in lines:
        carry_out(line, run, place, films)
    made = {path.name for path in place.iterdir()}
    assert {"fox.png", "cat.png", "again.png", "surprise.png", "morph.webp", "my-model"} <= made


@pytest.mark.parametrize("page", [p.name for p in PAGES if p.name != "README.md"])
def test_the_commands_of_every_page_run(run, place, films, page):  # noqa: F811
    """The pictures that the commands need exist in the directory."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    (place / "paintings").mkdir()
    for name in ("fox.png", "cat.png", "mine.png", "other.png", "new.png", "paintings/a.png"):
        Image.fromarray(pixels).save(place / name)
    (place / "ordinary").mkdir()
    for i in range(20):
        Image.fromarray(np.roll(pixels, i, axis=0)).save(place / "ordinary" / f"{i}.png")
    Image.fromarray(np.pad(np.full((10, 10), 255, np.uint8), 11)).save(place / "mask.png")
    for name, text in SHELL:
        for line in commands(text) if name == page else ():
            carry_out(line, run, place, films)


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[f"{p}-{i}" for i, (p, _) in
                                                       enumerate(PYTHON)])  # fmt: skip
def test_the_python_of_every_page_runs(place, sentences, films, monkeypatch, page, text):
    if "import OpenAI" in text:
        pytest.skip("needs a server and another package; tests of the server speak its protocol")
    if "tkinter" in text:
        pytest.importorskip("tkinter", reason="this Python has no tkinter")
        pytest.importorskip("PIL.ImageTk", reason="Pillow has no Tk here")
    if "mp4" in text:
        pytest.importorskip("av", reason="the extra [video] is not installed")
    load, model = sf.load, films if "clips" in text else sentences
    monkeypatch.setattr(sf, "load", lambda *_, **__: load(model), raising=False)
    flow = case_dir("t2i_tiny")
    shutil.copy(flow / "checkpoint.pth", "model.pth")
    shutil.copy(flow / "config.yaml", "model.yaml")
    if 'save("fox.png")' not in text:
        Image.new("RGB", (SIDE, SIDE), "red").save("fox.png")
    names: dict = {"__name__": "snippet"}
    if "pipe" in text and not re.search(r"\bpipe = |as pipe", text):  # goes on from a page's first
        names["pipe"] = sf.load()
    if "paths" in text:
        names["paths"] = [f"{i}.png" for i in range(20)]
        for i, path in enumerate([*names["paths"], "new.png"]):
            Image.new("RGB", (SIDE, SIDE), (10 * i, 40, 90)).save(path)
    exec(compile(text, page, "exec"), names)
    assert Path("fox.png").is_file()
    if "pipe" in names:
        names["pipe"].close()


def test_every_reason_is_needed():
    lines = [line for _, text in SHELL for line in commands(text)]
    for begin in NOT_RUN:
        used = any(line.startswith(begin) for line in lines)
        assert used or begin.split()[-1] in ("serve", "mcp"), begin
