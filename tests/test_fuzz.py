"""Files damaged at random never crash, hang or run anything."""

from __future__ import annotations

import dataclasses
import random

import pytest
from conftest import case_dir
from hostile.fuzz import fuzz

from convert.options import ConvertOptions
from convert.read.sources import Checkpoint, open_checkpoint
from convert.read.tensor_file import SourceTensor
from convert.rules.families import read_architecture
from convert.rules.layout import account, flow_layout
from mlx_starflow.errors import StarflowError


def check(count: int, seed: int, folder) -> None:
    outcomes = fuzz(count, seed, folder)
    assert sum(outcomes.values()) == count
    # A run that never gets past the first check would show nothing.
    assert outcomes["tensors"] > count / 100, outcomes
    assert outcomes["CheckpointError"] > count / 3, outcomes


def test_a_few_damaged_files(tmp_path):
    check(1500, 1, tmp_path)


def strange(tensor: SourceTensor, dice: random.Random) -> SourceTensor:
    """A tensor whose shape or type is wrong; nobody may look at its numbers."""
    shape = list(tensor.shape)
    kind = dice.randrange(5)
    if kind == 0:
        shape = shape[1:]
    elif kind == 1:
        shape = [*shape, dice.choice([0, 1, 2])]
    elif kind == 2:
        return dataclasses.replace(tensor, dtype=dice.choice(["I64", "BOOL", "F16"]))
    elif shape:
        size = dice.choice([0, 1, 2, 3, 7, 63, 100, 1 << 40])
        shape[dice.randrange(len(shape))] = size
    return dataclasses.replace(tensor, shape=tuple(shape))


@pytest.mark.parametrize("case", ["t2i_tiny", "gemma_top", "wide_top", "tarflow_vp"])
def test_strange_state_dicts(case, tmp_path):
    """Names and shapes of all kinds, and strange settings: a configuration or a clean refusal."""
    dice = random.Random(7)
    honest = open_checkpoint(case_dir(case) / "checkpoint.pth")
    yaml = case_dir(case) / "config.yaml"
    lines = yaml.read_text().splitlines() if yaml.exists() else None
    values = ["0", "1", "-1", "7", "64", "1e9", "nan", "inf", "x", "[1, 2]", "{a: 1}", "", "1 2"]
    outcomes = {True: 0, False: 0}
    for _ in range(100):
        tensors = dict(honest.tensors)
        for name in dice.sample(sorted(tensors), dice.randint(0, 3)):
            tensor = tensors.pop(name)
            if dice.random() < 0.7:
                tensors[name] = strange(tensor, dice)
            elif dice.random() < 0.5:
                tensors[name.replace("0", dice.choice("123456789"), 1)] = tensor
        config = None
        if lines is not None:
            config, changed = tmp_path / "a.yaml", list(lines)
            for _ in range(dice.randint(0, 2)):
                at = dice.randrange(1, len(lines))
                key = changed[at].split(":")[0]
                changed[at] = f"{key}: {dice.choice(values)}"
            config.write_text("\n".join(changed))
        options = ConvertOptions(honest.path, tmp_path / "out", config=config)
        if lines is None:
            options = dataclasses.replace(options, noise_std=0.1)
        try:
            found = read_architecture(options, Checkpoint(honest.path, tensors, honest.files), None)
            account(tensors, flow_layout(found.flow), found.dropped, "x")
            outcomes[True] += 1
        except StarflowError as error:
            assert 0 < len(str(error)) < 4000
            outcomes[False] += 1
    assert min(outcomes.values()) > 5, outcomes


@pytest.mark.slow
def test_many_damaged_files(tmp_path):
    check(20_000, 2, tmp_path)
