"""Files that are cut off while they are read, and training states with a wrong history: errors of
ours, and no crash."""

from __future__ import annotations

import dataclasses
import json
import os

import mlx.core as mx
import pytest
from teaching import adapter

import mlx_starflow as sf
from hostile.refusing import refused
from mlx_starflow.adapters.files import AdapterConfig
from mlx_starflow.config import TextConfig
from mlx_starflow.generation.components import Components
from mlx_starflow.text import load_encoder
from mlx_starflow.training.checkpoint import Checkpoint, Progress


@pytest.fixture
def cut(monkeypatch):
    """Weight files are cut off after their header was read, before their data are."""

    def load(path: str):
        arrays = honest(path)
        os.truncate(path, os.path.getsize(path) - 16)
        return arrays

    honest = mx.load
    monkeypatch.setattr("mlx_starflow.bundle.load.mx.load", load)


def test_a_bundle_that_is_cut_off_while_it_is_loaded(bundle, cut):
    said = refused(lambda: sf.load(bundle).flow)
    assert "model.safetensors cannot be read" in said


@pytest.mark.parametrize("kind", ["gemma", "gemma_tokens"])
def test_a_text_encoder_that_is_cut_off_while_it_is_loaded(kind, encoder, request):
    path = encoder / "model.safetensors"
    arrays = mx.load(str(path))
    mx.save_safetensors(str(path), {n: a for n, a in arrays.items() if "embed_tokens" in n}
                        if kind == "gemma_tokens" else arrays)  # fmt: skip
    request.getfixturevalue("cut")
    text = TextConfig(kind, 16, 128, masked=kind == "gemma")
    assert "cannot be read" in refused(lambda: load_encoder(encoder, text))


def test_an_adapter_that_is_cut_off_while_it_is_loaded(bundle, tmp_path, request):
    style = adapter(bundle, tmp_path / "style")
    with sf.load(bundle) as pipe:
        _ = pipe.flow
        request.getfixturevalue("cut")
        assert "adapters.safetensors cannot be read" in refused(lambda: pipe.set_adapters([style]))


HISTORIES = [{"since": ["x"]}, {"since": 3}, {"since": [None]}, {"since": [[1]]}, {"rows": 3},
             {"rows": [3]}, {"rows": [[1, 2, 3]]}, {"rows": [["x", 1, 2, 3]]},
             {"rows": [[1, "x", None, None]]}, {"step": "x"}, {"worse": None}]  # fmt: skip


@pytest.mark.parametrize("change", HISTORIES, ids=str)
def test_a_training_state_with_a_wrong_history(change, tmp_path, colours):
    checkpoint = Checkpoint(tmp_path, AdapterConfig(Components(colours, "x").base))
    about = {"identity": "same", **dataclasses.asdict(Progress()), **change}
    metadata = {"mlx-starflow": json.dumps(about)}
    mx.save_safetensors(str(tmp_path / "training_state.safetensors"), {"a": mx.zeros(3)}, metadata)
    assert "training_state" in refused(lambda: checkpoint.read_state("same"))


def test_a_training_state_that_is_cut_off_while_it_is_loaded(tmp_path, request, colours):
    checkpoint = Checkpoint(tmp_path, AdapterConfig(Components(colours, "x").base))
    checkpoint.save_state({"a": mx.zeros((100, 4))}, Progress(), "same")
    request.getfixturevalue("cut")
    said = refused(lambda: checkpoint.read_state("same"))
    assert "training_state.safetensors cannot be read" in said
