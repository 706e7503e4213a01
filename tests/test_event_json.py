"""Events and capabilities as JSON: complete, bounded, the same for every caller."""

from __future__ import annotations

import json
import math

import mlx.core as mx
import pytest
from command import run  # noqa: F401

import mlx_starflow as sf
from mlx_starflow.generation import events, memory
from mlx_starflow.generation.events import json_form


@pytest.fixture(params=["colours", "classes", "unconditional"])
def pipe(request):
    with sf.load(request.getfixturevalue(request.param)) as pipe:
        yield pipe


def test_every_event_has_a_json_form(pipe):
    prompt = {"text": "red", "class": "red", "none": None}[pipe.capabilities()["prompt"]]
    if pipe.config.model_type == "tarflow" and prompt:
        prompt = "1"
    rows = [e.to_dict() for e in pipe.stream(prompt, 7, num_images=2, previews=True)]
    text = json.dumps(rows, allow_nan=False)
    assert len(text) < 100_000
    assert [r["event"] for r in rows][0] == "started"
    assert [r["event"] for r in rows][-1] == "finished"
    assert all(isinstance(r["phase"], str) for r in rows)
    assert rows[-1]["result"]["pictures"] == 2
    assert rows[-1]["result"]["settings"]["seeds"] == [7, 8]
    previews = [r for r in rows if r["event"] == "preview"]
    assert previews and all(r["latents"]["shape"][0] == 2 for r in previews)
    assert math.isclose(sum(p["share"] for p in rows[0]["phases"]), 1.0)


def test_every_kind_of_event_names_itself():
    names = {kind.__name__: kind("x", *[()] * (len(kind.__dataclass_fields__) - 1)).name
             for kind in events.Event.__subclasses__()}  # fmt: skip
    assert names["BlockProgress"] == "block_progress" and names["TextEncoded"] == "text_encoded"
    assert len(set(names.values())) == len(names)


def test_the_json_form_is_bounded_and_has_no_nan():
    wild = {"text": "x" * 10**6, "list": list(range(10**5)), "bad": [math.nan, math.inf, 1.0]}
    tame = json_form(wild | {"array": mx.zeros((2, 3))})
    assert len(json.dumps(tame, allow_nan=False)) < 10_000
    assert tame["bad"] == [None, None, 1.0] and tame["array"] == {"shape": [2, 3]}


def test_capabilities_name_what_can_be_asked(pipe):
    found = pipe.capabilities()
    assert json.loads(json.dumps(found)) == found
    assert set(found["samplers"]) == {"auto", "sequential", "jacobi", "sliding"}
    assert found["sizes"]["1:1"] and found["defaults"]["guidance"] == 1.5
    assert found["limits"]["seed"] == [0, 2**32 - 1]
    if pipe.config.name == "colours":
        assert found["vocabulary"]["kinds"]["class"] == ["red", "green", "blue", "yellow"]


def test_info_says_the_same_without_a_model(run):  # noqa: F811
    with sf.load() as pipe:
        mine = pipe.capabilities()
    told = json.loads(run("info", "--json").out)
    assert {k: told[k] for k in mine} == mine
    assert "fox" in told["vocabulary"]["kinds"]["subject"] and "mcp" in told["extras"]


def test_the_largest_batch_is_what_memory_holds(colours, monkeypatch):
    with sf.load(colours) as pipe:
        settings = pipe.settings("red", 1)
        four = pipe.settings(["red"] * 4, [1] * 4)
        need = memory.memory_need(pipe._components, four).peak(False)
        for budget, most in ((need, 4), (need - 1, 3), (1, 1)):
            limit = memory.Budget(budget, 10**12, "a small device")
            monkeypatch.setattr(memory, "device_budget", lambda limit=limit: limit)
            assert pipe.largest_batch(settings, 16) == most
