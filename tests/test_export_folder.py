"""The folder of an export: what it says, what is refused, and the command that writes it."""

from __future__ import annotations

import json
import shutil

import pytest
from bundles import COLOURS
from command import run  # noqa: F401

import mlx_starflow as sf
from mlx_starflow.device.activations import on_gpu
from mlx_starflow.errors import ConfigError, ModelNotFoundError, UsageError
from mlx_starflow.export import export
from mlx_starflow.generation.components import Components


@pytest.fixture
def colours(few_tokens):
    return few_tokens


def edited(path, **changes) -> None:
    """Change export.json as somebody would who also knows how its fingerprint is made."""
    data = json.loads((path / "export.json").read_text()) | changes
    data.pop("fingerprint")
    sf.exported.write_manifest(path, data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: edited(p, mlx_version="0.1.2"), "made with MLX 0.1.2, but"),
        (lambda p: edited(p, device="cpu" if on_gpu() else "gpu"), "made for the"),
        (lambda p: edited(p, functions={"a": {"file": "../a.mlxfn"}}), "is not among 'files'"),
        (lambda p: edited(p, format_version=2), "has version 2"),
        (lambda p: edited(p, format="other"), "not an export"),
        (lambda p: (p / "export.json").write_text("{"), "cannot be read"),
        (lambda p: replace(p / "export.json", b'"weight": 1.5', b'"weight": 9.5'), "fingerprint"),
        (lambda p: replace(p / "picture.mlxfn", None, b"x"), "was changed"),
        (lambda p: cut(p / "picture.mlxfn"), "bytes instead of"),
        (lambda p: (p / "picture.mlxfn").unlink(), "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(coloured, tmp_path, change, said):
    path = tmp_path / "copy"
    shutil.copytree(coloured / "picture", path)
    sf.exported.load(path)
    change(path)
    with pytest.raises(ConfigError, match=said):
        sf.exported.load(path)


def replace(path, old: bytes | None, new: bytes) -> None:
    """Replace bytes; None: one in the middle of the file."""
    data = bytearray(path.read_bytes())
    place = len(data) // 2 if old is None else data.index(old)
    if old is None and data[place : place + 1] == new:
        new = b"y"
    data[place : place + len(old or new)] = new
    path.write_bytes(data)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_mistakes_are_named(colours, filmed, unconditional, coloured, tmp_path):
    components = Components(colours, "colours")
    for options, said in [
        ({"what": "film"}, "expected one of"),
        ({"batch": 0}, "batch is 0"),
        ({"what": "steps", "tile": 8}, "autoencoder"),
        ({"what": "text"}, "no text encoder"),
        ({"aspect_ratio": "7:3"}, "aspect_ratio is '7:3'"),
    ]:
        with pytest.raises(UsageError, match=said):
            export(components, tmp_path / "no", **options)
    with pytest.raises(UsageError, match="clips"):
        export(Components(filmed, "filmed"), tmp_path / "no")
    with pytest.raises(UsageError, match="unconditional"):
        export(Components(unconditional, "u"), tmp_path / "no", guidance=2.0)
    with pytest.raises(UsageError, match="exists"):
        export(components, coloured / "picture")
    assert not (tmp_path / "no").exists()
    with pytest.raises(ModelNotFoundError, match="export.json is missing"):
        sf.exported.load(tmp_path)


def test_a_flow_of_many_tokens_is_exported_in_steps(colours, tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_starflow.export.plan.MOST_UNROLLED", 25)
    components = Components(colours, "colours")
    assert export(components, tmp_path / "steps").what == "steps"
    with pytest.raises(UsageError, match="--what steps"):
        export(components, tmp_path / "picture", "picture")


def test_the_manifest_says_what_a_host_needs(coloured):
    data = json.loads((coloured / "steps" / "export.json").read_text())
    assert data["noise"]["order_in_a_token"] == ["row", "column", "channel"]
    assert data["text"]["labels"] == list(COLOURS)
    assert [b["block"] for b in data["sampling"]["blocks"]] == [2, 1, 0]
    step = data["functions"]["block2.step.layer0"]
    assert [i["name"] for i in step["inputs"]] == ["hidden", "t", "keys", "values"]
    assert step["inputs"][2]["shape"] == data["sampling"]["blocks"][0]["cache"]["shape"]
    assert [o["name"] for o in step["outputs"]] == ["hidden", "keys", "values"]
    assert set(data["files"]) >= {"block0.mlxfn", "block2.mlxfn", "layout.mlxfn"}


def test_the_command(run, colours, tmp_path):  # noqa: F811
    words = ["export", colours, "--output", "out", "--what", "score", "--guidance", 0]
    done = run(*words, "--json")
    report = json.loads(done.lines[-1])
    assert done.status == 0 and report["path"] == "out" and report["what"] == "score"
    assert report["functions"] == 2 and "MB" in done.err
    written = sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert report["bytes"] <= written <= report["bytes"] + 10_000  # export.json comes last
    data = sf.exported.load(tmp_path / "out").data
    assert data["fingerprint"] == report["fingerprint"]
    assert "Licence of the model colours" in (tmp_path / "out" / "LICENCE.txt").read_text()
    again = run(*words)
    assert again.status == 2 and "out exists" in again.err and not again.out
    assert run("export", colours, "--output", "o", "--tile", 8).status == 2
    assert not (tmp_path / "o").exists()
