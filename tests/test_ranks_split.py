"""Models divided among ranks give the numbers of whole ones, and hold and send what they should."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from conftest import case_dir, case_info
from families import FAMILIES, random_flow
from full_size import lay_out
from mlx.utils import tree_flatten
from ranked import on_ranks
from reference_cases import STARFLOW, TARFLOW

from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions
from mlx_starflow.bundle.load import write_component
from mlx_starflow.bundle.quantize import quantization_block, quantize_module
from mlx_starflow.config import BlockConfig, FlowConfig
from mlx_starflow.device.shared import Share
from mlx_starflow.device.typed import layers_of
from mlx_starflow.errors import UsageError
from mlx_starflow.flow.shards import layer_cuts
from mlx_starflow.flow.split import Split
from mlx_starflow.generation.components import Components
from mlx_starflow.generation.memory_need import memory_need
from mlx_starflow.generation.settings import resolve
from mlx_starflow.ranks.costs import (
    Machine,
    guidance_speedup,
    handing_out,
    tensor_cost,
    tensor_speedup,
)

PROGRAM = Path(__file__).with_name("split_programs.py")
EXACT = 1e-5


def run(ranks: int, *arguments) -> list[dict]:
    """What the program gives on every rank."""
    return [json.loads(end.out) for end in on_ranks(ranks, PROGRAM, *arguments)]


def check(results: list[dict]) -> None:
    """Every number is that of one process, and all ranks have computed the same."""
    for case, first in results[0].items():
        assert {r[case].get("digest") for r in results} == {first.get("digest")}, case
    for result in results:
        for case, found in result.items():
            errors = {k: v for k, v in found.items() if k not in ("digest", "messages")}
            assert max(errors.values()) < EXACT, (case, errors)


def check_quantized(results: list[dict]) -> None:
    """Quantized models keep keys and values in 16 bits, where another order of additions may round
    to a neighbouring number. In 32 bits shares give the numbers of the whole: no group of
    quantized numbers is cut."""
    for result in results:
        assert len(result) == 4
        for kind, found in result.items():
            assert max(found.values()) < (EXACT if kind.endswith("32") else 2**-11), (kind, found)


def check_refused(results: list[dict]) -> None:
    for result in results:
        assert result["same"]
        assert "1 attention heads (of 24 channels) cannot be divided" in result["message"]


def check_counted(results: list[dict]) -> None:
    for result in results:
        kinds = {"tensor 1", "tensor 4", "guidance 1", "guidance 4", "training"}
        assert set(result) == kinds
        for counted, computed in result.values():
            assert counted == computed and counted[0] > 0


def check_t5(results: list[dict]) -> None:
    for result in results:
        assert max(result.values()) < EXACT


OF_TWO = {
    "tensor grouped_gated learned_denoiser": check,
    "guidance released tarflow_classes clips": check,
    "adapters grouped_gated": check,
    "quantized": check_quantized,
    "refused": check_refused,
    "counted": check_counted,
    "t5": check_t5,
}


def test_two_ranks():
    """Shares of layers, captions and null captions apart, adapters and gradients, quantized models
    and T5 give the numbers of one process; messages and bytes are those of the cost model; heads
    that do not divide are refused by name. One process for a rank does all of it."""
    ends = run(2, *" , ".join(OF_TWO).split())
    for (program, checked), *results in zip(OF_TWO.items(), *ends, strict=True):
        checked(results)
        if program.startswith("guidance"):
            assert all(found["messages"] > 0 for found in results[0].values())


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_adapters_on_shares_in_every_family(ranks):
    check(run(ranks, "adapters"))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_shares_in_every_family(ranks, family):
    check(run(ranks, "tensor", family))


FIXTURES = (*STARFLOW, *TARFLOW, "video_tiny", "video_i2v", "video_long", "video_global",
            "video_noncausal")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", FIXTURES)
def test_shares_of_the_reference_models(case, tmp_path):
    """Skipped where the reference case is not at hand. Some have heads that two ranks cannot
    share; then their configuration with other heads is used."""
    folder = case_dir(case)
    config = next((p for p in (folder / "config.yaml", folder / "video.yaml") if p.exists()), None)
    std = None if config is not None else case_info(case)["noise_std"]
    source = folder / "checkpoint.pth"
    convert_checkpoint(ConvertOptions(source, tmp_path / "model", config=config, noise_std=std))
    for result in run(2, "stored_flow", tmp_path / "model" / "flow"):
        assert all(error < EXACT for error in result["errors"].values()), result


@pytest.mark.slow
def test_guidance_in_every_family():
    check(run(2, "guidance"))


def test_heads_of_keys_and_values_are_divided_repeated_or_refused_by_name():
    block = BlockConfig(1, channels=24, heads=12, kv_heads=4, head_dim=24, mlp_channels=48)
    (_, keys, values) = layer_cuts(block, Share(1, 2))["attention.qkv"].parts
    assert (keys, values) == ((14 * 24, 16 * 24), (18 * 24, 20 * 24))
    fewer = dataclasses.replace(block, kv_heads=2)
    parts = [layer_cuts(fewer, Share(rank, 4))["attention.qkv"].parts[1] for rank in range(4)]
    assert parts == [(12 * 24, 13 * 24)] * 2 + [(13 * 24, 14 * 24)] * 2
    with pytest.raises(UsageError, match="4 heads of keys and values can neither be divided"):
        layer_cuts(block, Share(0, 3))


@pytest.mark.slow
def test_sharded_load_draws_what_load_does(converted):
    for result in run(2, "pipeline", converted):
        assert result["latents"] < EXACT and result["share"] < 0.8  # a tiny model: wide ends


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 4])
def test_t5_in_shares(ranks):
    check_t5(run(ranks, "t5"))


def stored(folder: Path) -> FlowConfig:
    """A flow with most weights in its layers, as in the released models, in 32 and in 8 bits."""
    plain = dict(channels=768, heads=12, kv_heads=12, head_dim=64, mlp_channels=3072)
    block = BlockConfig(layers=1, **plain, final_norm=True)
    deep = dataclasses.replace(block, conditioned=True)
    config = dataclasses.replace(FAMILIES["released"], blocks=(block, deep))
    flow = random_flow(config)
    write_component(folder / "whole", config.to_dict(), dict(tree_flatten(flow.parameters())))
    quantize_module(flow, config.to_dict(), 8)
    bits = {path: leaf.bits for path, leaf in layers_of(flow) if "scales" in leaf}
    about = {**config.to_dict(), "quantization": quantization_block(bits)}
    write_component(folder / "packed", about, dict(tree_flatten(flow.parameters())))
    return config


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/io")
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_rank_reads_and_holds_its_share(tmp_path, ranks):
    stored(tmp_path)
    mx.clear_cache()
    for result in run(ranks, "loaded", tmp_path, "whole", "packed", "whole+4"):
        for kind, found in result.items():
            assert found["weights"] <= 1 / ranks + 0.05, (kind, found)
            assert found["read"] <= 1 / ranks + 0.05, (kind, found)
            # Quantized models keep keys and values in 16 bits, which round by 2**-11.
            assert found["sample"] < (EXACT if kind == "whole" else 2**-11), (kind, found)


def test_the_cost_model_in_numbers():
    flow = dataclasses.replace(FAMILIES["released"], in_channels=4)
    deep = BlockConfig(layers=24, channels=3072, heads=48, kv_heads=48, head_dim=64,
                       mlp_channels=12288)  # fmt: skip
    cost = tensor_cost(deep, 2, 1)
    assert (cost.messages, cost.bytes) == (48, 48 * 2 * 3072 * 4)
    slow = Machine(120e9, 4e12, 50e-6, 1.2e9)
    assert 1.5 < tensor_speedup(slow, 2, deep, 2, 2, 1) < 2
    ideal = Machine(120e9, 4e12, 0.0, 1e30)
    assert tensor_speedup(ideal, 4, deep, 2, 2, 1) == pytest.approx(4)
    assert guidance_speedup(slow, flow, deep, 2, 1, 1) < 1  # both read all weights
    assert guidance_speedup(ideal, flow, deep, 2, 1, 256) == pytest.approx(2)


def test_handing_out_one_by_one():
    assert handing_out([1.0] * 8, [1.0] * 4, 0.0) == 1
    assert handing_out([1.0] * 5, [1.0] * 4, 0.0) == pytest.approx(5 / 8)
    assert handing_out([1.0] * 900, [1.0, 1.0, 0.25], 0.0) > 0.98  # a slow rank holds nobody up
    assert handing_out([1.0] * 100, [1.0] * 10, 0.5) == pytest.approx(100 / 10 / 51)


class TwoRanks:
    """Stands for a group of MLX where nothing is sent."""

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 2


def test_the_released_model_fits_two_macs_of_8_gigabytes(tmp_path, monkeypatch):
    """At 16 bits, counted from the parts of the model, in two thirds of the memory: what macOS
    recommends for one program on a small Mac. Components are dropped when they are done with."""
    lay_out(tmp_path / "model", None)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    need = {}
    for name, split in (("one", None), ("two", Split("tensor", TwoRanks()))):
        components = Components(tmp_path / "model", "", "bfloat16", None, split=split)
        wish = resolve(components.config, components.flow_config, components.factor, "a fox", 1)
        need[name] = memory_need(components, wish, stored=True)
    assert need["two"].flow < (0.5 + 0.01) * need["one"].flow
    assert need["two"].text_encoder < (0.5 + 0.05) * need["one"].text_encoder
    assert need["two"].peak(True) < 2 / 3 * 8e9 < need["one"].peak(True)
