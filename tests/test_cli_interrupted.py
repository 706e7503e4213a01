"""Ctrl-C in every command prints what was finished; a missing environment is tolerated."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from command import run  # noqa: F401
from conftest import case_dir
from hub_client import ROOT
from test_cli_pictures import mask, picture

from mlx_starflow.cli import app as cli


class After:
    """Raises KeyboardInterrupt at call number ``count`` of a function, which it stands for."""

    def __init__(self, function, count: int) -> None:
        self.function, self.left = function, count

    def __call__(self, *arguments, **named):
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt
        return self.function(*arguments, **named)


@pytest.fixture
def colours(few_tokens):
    return few_tokens


@pytest.fixture(scope="module")
def prepared(few_tokens, tmp_path_factory):
    """A folder with a picture, a mask, a noise and a compressed picture."""
    folder = tmp_path_factory.mktemp("prepared")
    picture(folder / "a.png")
    mask(folder / "m.png", slice(0, 4), slice(0, 4))
    for command, name in (("encode", "z.safetensors"), ("compress", "a.flow")):
        line = (command, folder / "a.png", "--no-check", "-o", folder / name, "-m", few_tokens)
        assert cli.run([*map(str, line)]) == 0
    return folder


@pytest.fixture
def place(prepared, tmp_path):
    """A copy of this folder."""
    return shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)


CASES = {  # command line, the function that is interrupted, at which call, what is said
    "generate": ("generate red --seed 1 2 3", "cli.drawing._save", 3, "after 2 of 3 pictures"),
    "one": ("generate red --seed 1", "cli.drawing._save", 1, "after 0 of 1 picture; nothing"),
    "decode": ("decode z.safetensors", "cli.drawing._save", 1, "0 of 1 picture; nothing is saved"),
    "vary": ("vary a.png", "cli.drawing._save", 1, "0 of 1 picture; nothing is saved"),
    "encode": ("encode a.png", "cli.encode.write_noise", 1, "nothing is saved"),
    "edit": ("edit a.png --mask m.png --prompt red --seed 1 2", "cli.edit.save_picture", 2,
             "saved: image_seed_1.png"),
    "edit first": ("edit a.png --mask m.png --prompt red", "cli.edit._followed", 1,
                   "nothing is saved"),
    "interpolate": ("interpolate --seed 1 2 --prompt red --frames 9",
                    "editing.interpolate.finished", 2, "4 of 9 frames drawn, nothing is saved"),
    "compress": ("compress a.png a.png --output out", "cli.compress.compress_picture", 2,
                 "after 1 of 2 pictures; finished: out/a.flow"),
    "decompress": ("decompress a.flow a.flow --output out", "cli.decompress.decompress_file", 2,
                   "after 1 of 2 files; finished: out/a.png"),
    "doctor": ("doctor", "benchmark.doctor.examine", 1, "0 of 11 checks are done"),
    "benchmark": ("benchmark", "cli.benchmark.compare_samplers", 1, "no results before the end"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_was_finished_is_said(run, colours, place, monkeypatch, case):  # noqa: F811
    line, name, count, says = CASES[case]
    module, function = f"mlx_starflow.{name}".rsplit(".", 1)
    original = getattr(importlib.import_module(module), function)
    monkeypatch.setattr(f"{module}.{function}", After(original, count))
    outcome = run(*line.split(), "-m", colours)
    assert outcome.status == 130, outcome.err
    assert says in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err


def test_findings_that_are_finished_are_printed(run, colours, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "in").mkdir()
    for i in range(20):
        picture(tmp_path / "in" / f"{i:02d}.png", i)
    made = run("watch", "fit", "in", "--draws", 1, "-m", colours)
    assert made.status == 0, made.err
    from mlx_starflow.cli import watch

    words = ("watch", "check", "in", "--reference", "normal.json", "-m", colours)
    monkeypatch.setattr(watch, "check", After(watch.check, 4))
    outcome = run(*words)
    assert outcome.status == 130 and len(outcome.lines) == 3
    assert "after 3 of 20 pictures; the results are above" in outcome.err
    monkeypatch.setattr(watch, "fit", After(watch.fit, 1))
    outcome = run("watch", "fit", "in", "-m", colours)
    assert outcome.status == 130 and "nothing is saved" in outcome.err


def test_other_commands_say_that_they_were_interrupted(run, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mlx_starflow.cli.info.machine", After(None, 1))
    outcome = run("info")
    assert outcome.status == 130 and outcome.err == "mlx-starflow: Interrupted.\n"


def test_scores_that_are_finished_are_printed(run, colours, tmp_path, monkeypatch):  # noqa: F811
    from mlx_starflow.cli import scoring

    (tmp_path / "in").mkdir()
    for i in range(5):
        picture(tmp_path / "in" / f"{i}.png", i)
    monkeypatch.setattr(scoring, "GROUP", 2)
    monkeypatch.setattr(scoring, "latents_of", After(scoring.latents_of, 3))
    outcome = run("score", "in", "-m", colours)
    assert outcome.status == 130 and "after 4 of 5 pictures; their scores are above" in outcome.err
    assert len(outcome.lines) == 5
    monkeypatch.setattr(scoring, "latents_of", After(scoring.latents_of, 1))
    outcome = run("score", "in", "-m", colours, "--json")
    assert outcome.out == "" and "no scores" in outcome.err


def test_a_conversion_leaves_nothing_and_says_so(run, tmp_path, monkeypatch):  # noqa: F811
    import convert.bundle

    flow = case_dir("t2i_tiny")
    monkeypatch.setattr(convert.bundle, "_model_config", After(None, 1))
    outcome = run("convert", flow / "checkpoint.pth", "--config", flow / "config.yaml", "-o", "m")
    assert outcome.status == 130 and "nothing was written to m" in outcome.err
    assert not list(tmp_path.iterdir())


def test_a_download_can_be_continued(run, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mlx_starflow.cli.models.acquire", After(None, 1))
    outcome = run("models", "download", "apple/starflow")
    assert outcome.status == 130 and "continues" in outcome.err


# score of a folder


def test_a_folder_is_read_as_its_files_are(run, colours, tmp_path):  # noqa: F811
    folder = tmp_path / "in"
    (folder / "deeper.png").mkdir(parents=True)
    picture(folder / "a.png")
    picture(folder / "deeper.png" / "b.png")
    (folder / "no-suffix").write_bytes((folder / "a.png").read_bytes())
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("notes")
    outcome = run("score", folder, "-m", colours, "--json")
    assert outcome.status == 0, outcome.err
    found = {os.path.basename(r["path"]) for r in json.loads(outcome.out)["images"]}
    assert found == {"a.png", "no-suffix"}
    assert run("score", folder / "no-suffix", "-m", colours).status == 0


def test_one_broken_picture_does_not_lose_the_others(run, colours, tmp_path):  # noqa: F811
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        picture(folder / f"{i}.png", i)
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    outcome = run("score", folder, "-m", colours, "--json")
    result = json.loads(outcome.out)
    assert len(result["images"]) == 3
    assert [os.path.basename(f["path"]) for f in result["failed"]] == ["broken.png"]
    assert outcome.status == 1 and "1 of 4 pictures could not be scored" in outcome.err


def test_every_draw_moves_the_bar(colours, tmp_path, monkeypatch):
    from pathlib import Path

    import mlx_starflow as sf
    from mlx_starflow.cli.console import Console
    from mlx_starflow.cli.picture_options import Fit
    from mlx_starflow.cli.scoring import Scoring
    from mlx_starflow.exact.scoring import ScoreOptions

    shares = []
    console = Console(quiet=True)
    console.draw = lambda phase, detail, share, left: shares.append(share)
    path = Path(picture(tmp_path / "a.png"))
    with sf.load(colours) as pipe:
        Scoring([path], [""], ScoreOptions(draws=50), Fit.refuse, console).run(pipe)
    assert len(shares) == 50 and shares == sorted(shares) and shares[-1] == 1


# places that cannot be written are refused before anything is drawn

UNWRITABLE = (
    "generate red -o /proc/a.png",
    "generate red --save-latents /proc/a.npy",
    "generate red --stepwise-image-output-dir /proc/steps",
    "generate red --stepwise-image-output-dir a.png",
    "generate red -o " + "x" * 250 + ".png",
    "decode z.safetensors -o /proc/a.png",
    "vary a.png -o /proc/a.png",
    "encode a.png -o /proc/z.safetensors",
    "edit a.png --mask m.png --prompt red -o /proc/a.png",
    "interpolate --seed 1 2 --animation /proc/a.gif",
    "interpolate --seed 1 2 -o /proc/a.png",
    "score a.png --map /proc/a.png",
    "compress a.png -o /proc/a.flow",
    "decompress a.flow -o /proc/a.png",
    "watch fit a.png -o /proc/a.json",
    "train --data . --adapter-path /proc/x",
    "fuse --adapter-path style --save-path /proc/x",
    "doctor --report /proc/a.md",
)


@pytest.mark.parametrize("line", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_refused_first(
    run, colours, place, monkeypatch, line  # noqa: F811
):  # fmt: skip
    before = sorted(place.iterdir())
    monkeypatch.setattr("mlx_starflow.generation.components.Components._load_flow", After(None, 1))
    outcome = run(*line.split(), "-m", colours)
    assert outcome.status in (1, 2), outcome.err  # 130: the flow was loaded first
    assert sorted(place.iterdir()) == before


# what surrounds the program


def shell(line: str, **environment: str) -> subprocess.CompletedProcess:
    command = line.replace("COMMAND", f"{sys.executable} {ROOT / 'cli.py'}")
    return subprocess.run(
        command, shell=True, capture_output=True, text=True, env=dict(os.environ) | environment
    )


def test_closed_standard_output_is_a_sentence(colours, tmp_path):
    done = shell(f"COMMAND generate red -m {colours} -o {tmp_path / 'a.png'} >&-")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "Standard output is closed" in done.stderr
    assert not list(tmp_path.iterdir())


def test_closed_standard_error_is_silence(colours, tmp_path):
    done = shell(f"COMMAND generate red -m {colours} -o {tmp_path / 'a.png'} 2>&-")
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'a.png'}\n"
    assert shell("COMMAND generate -m nowhere red 2>&-").returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_standard_output_on_a_full_disk_is_a_sentence():
    done = shell("COMMAND models list > /dev/full")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "disk is full" in done.stderr


def test_mlx_without_its_driver_is_a_sentence(tmp_path):
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "__init__.py").write_text("")
    (tmp_path / "mlx" / "core.py").write_text(
        "raise ImportError('libcuda.so.1: cannot open shared object file', name='mlx.core')\n"
    )
    done = shell("COMMAND generate red", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "driver" in done.stderr and "[cuda]" in done.stderr
