"""The estimated memory of a request agrees with the measured one, and the advice is right."""

from __future__ import annotations

import gc
import json
import re
import weakref
from dataclasses import replace
from pathlib import Path

import full_size
import mlx.core as mx
import pytest
from bundles import colours_bundle
from mlx.utils import tree_flatten

import mlx_starflow as sf
from mlx_starflow.bundle import types as types_module
from mlx_starflow.bundle.load import load_component, write_component
from mlx_starflow.bundle.quantize import takes_type
from mlx_starflow.config import BlockConfig, FlowConfig, VAEConfig
from mlx_starflow.device import wired as wired_module
from mlx_starflow.errors import OutOfMemoryError
from mlx_starflow.flow import Flow
from mlx_starflow.flow.grid import Grid
from mlx_starflow.generation.components import Components
from mlx_starflow.generation.memory import Budget, device_budget, plan_memory
from mlx_starflow.generation.memory_need import (
    Need,
    component_bytes,
    denoising_bytes,
    memory_need,
    sampling_bytes,
)
from mlx_starflow.generation.settings import resolve
from mlx_starflow.hub.locate import EMBEDDED
from mlx_starflow.sampling import conditional
from mlx_starflow.text.t5 import T5Config, T5Encoder
from mlx_starflow.vae import AutoencoderKL
from mlx_starflow.vae.memory import decoding_bytes

HUGE = 10**15


def build(kind: str):
    return {
        "flow": lambda config: Flow(FlowConfig.from_dict(config)),
        "vae": lambda config: AutoencoderKL(VAEConfig.from_dict(config)),
        "text_encoder": lambda config: T5Encoder(T5Config.from_dict(config)),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "dtype", "quantize"),
    [
        ("flow", None, None),
        ("flow", "float32", None),
        ("flow", "bfloat16", None),
        ("flow", None, 4),
        ("flow", "bfloat16", 8),
        ("flow", "float16", "mixed"),
        ("text_encoder", None, None),
        ("text_encoder", "bfloat16", None),
        ("vae", None, None),
    ],
)
def test_weights_are_counted_to_the_byte(converted, kind, dtype, quantize):
    module = load_component(converted / kind, build(kind), dtype, quantize)
    held = sum(array.nbytes for _, array in tree_flatten(module.parameters()))
    assert component_bytes(converted / kind, dtype, quantize) == held


def request(components: Components, prompt: str, **options):
    return resolve(components.config, components.flow_config, components.factor, prompt, **options)


@pytest.mark.parametrize(
    ("pictures", "low_ram"),
    [
        (3, False),
        (1, True),
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(3, True, marks=pytest.mark.slow),
    ],
)
def test_the_estimate_is_enough_and_not_far_too_much(converted, pictures, low_ram):
    mx.clear_cache()
    before = mx.get_active_memory()
    with sf.load(converted, low_ram=low_ram) as pipe:
        result = pipe.generate("a fox", seed=1, num_images=pictures)
    measured = max(result.metadata["peak_memory_bytes"].values()) - before
    components = Components(converted, "tiny")
    need = memory_need(components, request(components, "a fox", num_images=pictures)).peak(low_ram)
    assert measured * 0.85 <= need <= measured * 3, f"said {need}, took {measured}"


@pytest.mark.parametrize(
    ("options", "pictures", "low_ram"),
    [
        (dict(dtype="float32"), 1, False),
        pytest.param(dict(dtype="float32"), 1, True, marks=pytest.mark.slow),
        pytest.param(dict(quantize=4), 1, False, marks=pytest.mark.slow),
        pytest.param(dict(dtype="float32"), 3, False, marks=pytest.mark.slow),
        pytest.param(dict(dtype="float16"), 1, False, marks=pytest.mark.slow),
        pytest.param(dict(dtype="float16"), 1, True, marks=pytest.mark.slow),
        pytest.param(dict(quantize=8), 1, False, marks=pytest.mark.slow),
    ],
)
def test_the_estimate_is_within_15_percent_of_the_peak(options, pictures, low_ram):
    """On the embedded model, whose arrays are larger than what every program has about it; the
    second of two requests, all components loaded unless ``low_ram`` drops them."""
    mx.clear_cache()
    before = mx.get_active_memory()
    words = dict(sampler="sequential", num_images=pictures)
    with sf.load(low_ram=low_ram, **options) as pipe:
        pipe.generate("a fox in snow", seed=1, **words)
        peaks = pipe.generate("a fox in snow", seed=1, **words).metadata["peak_memory_bytes"]
    components = Components(
        EMBEDDED["default"], "default", options.get("dtype"), options.get("quantize")
    )
    need = memory_need(components, request(components, "a fox in snow", **words)).peak(low_ram)
    assert need == pytest.approx(max(peaks.values()) - before, rel=0.15)


@pytest.mark.parametrize("side", [16, 32, pytest.param(64, marks=pytest.mark.slow)])
def test_what_decoding_takes_is_within_15_percent(side):
    with sf.load() as pipe:
        vae = pipe.vae

        def peak() -> int:
            channels = vae.config.latent_channels
            latent = mx.random.normal((1, side, side, channels), key=mx.random.key(0))
            mx.eval(latent)
            mx.clear_cache()
            before = mx.get_active_memory()
            mx.reset_peak_memory()
            mx.eval(vae.decode(latent))
            return mx.get_peak_memory() - before

        # The more, the further the thread that describes the work is ahead of the one that does it.
        measured = max(pipe.run(peak) for _ in range(5))
    assert decoding_bytes(vae.config, side, side) == pytest.approx(measured, rel=0.15)


def test_ten_low_ram_pictures_with_compiled_steps_need_no_more_than_one(colours, monkeypatch):
    """Without the garbage collector: a block must not be kept alive by its compiled steps."""
    monkeypatch.setattr(conditional, "on_gpu", lambda: True)  # as on a GPU: compiled
    compiled, held, drop = [], [], Components.drop

    def watched(self, component):
        if component == "flow" and self.is_loaded("flow"):
            compiled.append([bool(b.__dict__.get("_steps")) for b in self.flow.blocks])
        drop(self, component)

    monkeypatch.setattr(Components, "drop", watched)
    gc.collect()
    gc.disable()
    try:
        with sf.load(colours, low_ram=True) as pipe:
            for seed in range(10):
                pipe.generate("red", seed=seed, sampler="sequential")
                held.append(mx.get_active_memory())
    finally:
        gc.enable()
    assert len(compiled) == 10 and all(map(all, compiled))
    whole = component_bytes(colours / "flow")
    # Ten flows that stay would be ten times the whole.
    assert max(held) - min(held) < 0.2 * whole, held


def test_dropping_a_flow_with_compiled_steps_frees_it(colours):
    flow = Components(colours, "colours").flow
    left = [weakref.ref(module) for module in (flow, *flow.blocks)]
    options = sf.SampleOptions(sampler="sequential", compile=True)
    gc.collect()
    gc.disable()
    try:
        for _ in sf.invert_steps(flow, mx.zeros((1, 12, 12, 3)), mx.zeros((1, 1, 5)), options):
            pass
        assert all(block.__dict__.get("_steps") for block in flow.blocks)
        del flow
        assert all(module() is None for module in left)
    finally:
        gc.enable()


def test_quantizing_frees_each_matrix_before_the_next(tmp_path):
    """What is in memory meanwhile is the whole and one matrix, not the whole twice."""
    settings = replace(released(channels=256), blocks=released(channels=256).blocks[:4])
    flow = Flow(settings)
    weights = {k: v.astype(mx.float32) for k, v in tree_flatten(flow.parameters())}
    write_component(tmp_path / "flow", settings.to_dict(), weights)
    del flow, weights
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    module = load_component(tmp_path / "flow", build("flow"), "float32", 8)
    peak = mx.get_peak_memory() - before
    whole = component_bytes(tmp_path / "flow", "float32")
    packed = sum(array.nbytes for _, array in tree_flatten(module.parameters()))
    assert peak < whole + 0.3 * packed


@pytest.mark.parametrize(("stored", "loaded", "gpu"), [
    (mx.bfloat16, mx.bfloat16, False), (mx.float32, mx.float16, False),
    (mx.bfloat16, mx.float16, True),
], ids=str)  # fmt: skip
def test_loading_16_bits_needs_no_more_than_two_tensors_beside_the_whole(
    tmp_path, monkeypatch, stored, loaded, gpu
):
    """``gpu``: nobody names a type, and bfloat16 becomes float16 after loading. The bound that
    decides it takes one matrix in float32, which is two in 16 bits, and sums of its rows."""
    monkeypatch.setattr(types_module, "on_gpu", lambda: gpu)
    monkeypatch.setattr(types_module, "SMALL", 0)  # the default on a GPU as for a large flow
    block = BlockConfig(2, 256, 4, 4, 64, 1024, final_norm=True)
    settings = replace(released(), blocks=(block, block), text_channels=0, text_length=0)
    weights = {
        name: value.astype(stored) if takes_type("flow", name) else value
        for name, value in tree_flatten(Flow(settings).parameters())
    }
    largest = max(value.size for value in weights.values()) * max(stored.size, loaded.size)
    write_component(tmp_path / "flow", settings.to_dict(), weights)
    del weights
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    name = None if gpu else str(loaded).removeprefix("mlx.core.")
    module = load_component(tmp_path / "flow", build("flow"), name)
    peak = mx.get_peak_memory() - before
    arrays = dict(tree_flatten(module.parameters()))
    assert {v.dtype for n, v in arrays.items() if takes_type("flow", n)} == {loaded}
    whole = sum(value.nbytes for value in arrays.values())
    assert peak < whole + 2 * largest + 8 * block.mlp_channels < 1.5 * whole


def test_the_wired_limit_is_set_around_the_work_and_put_back(monkeypatch):
    limits, now = [], [7]

    def set_limit(size):
        old, now[0] = now[0], size
        limits.append(size)
        return old

    facts = {"max_recommended_working_set_size": 1000}
    monkeypatch.setattr(wired_module, "has_metal", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda *_: facts)
    monkeypatch.setattr(mx, "set_wired_limit", set_limit)
    with wired_module.wired():
        assert now == [1000]
        with wired_module.wired():  # another pipeline at the same time
            assert now == [1000]
        assert now == [1000]
    assert now == [7] and limits == [1000, 7]
    with pytest.raises(KeyError), wired_module.wired():
        raise KeyError
    assert now == [7]
    monkeypatch.setattr(wired_module, "has_metal", lambda: False)
    with wired_module.wired():
        assert now == [7]


@pytest.fixture(scope="module")
def components(converted) -> Components:
    return Components(converted, "tiny")


def budget(size: int, physical: int = HUGE) -> Budget:
    return Budget(size, physical, "The test device")


def test_what_fits_is_done_as_asked(components):
    settings = request(components, "a fox")
    plan = plan_memory(components, settings, budget=budget(HUGE))
    assert plan.warning is None and not plan.low_ram
    assert plan_memory(components, settings, low_ram=True, budget=budget(HUGE)).low_ram
    exact = plan.need.peak(False)
    assert plan_memory(components, settings, budget=budget(exact)).warning is None


def test_components_are_dropped_where_that_helps(components):
    settings = request(components, "a fox")
    need = memory_need(components, settings)
    assert need.peak(True) < need.peak(False)
    plan = plan_memory(components, settings, budget=budget(need.peak(False) - 1))
    assert plan.low_ram and "--low-ram" in plan.warning
    assert "The test device recommends at most" in plan.warning


def test_the_precision_that_would_fit_is_named(tmp_path):
    """A flow whose weights need most of the memory."""
    folder = colours_bundle(tmp_path / "wide")
    config = json.loads((folder / "flow" / "config.json").read_text())
    wide = {"channels": 256, "heads": 4, "kv_heads": 4, "head_dim": 64, "mlp_channels": 1024}
    wide["layers"] = 4
    config["blocks"] = [block | wide for block in config["blocks"]]
    flow = Flow(FlowConfig.from_dict(config))
    weights = dict(tree_flatten(flow.parameters()))
    mx.save_safetensors(str(folder / "flow" / "model.safetensors"), weights)
    (folder / "flow" / "config.json").write_text(json.dumps(config))
    components = Components(folder, "wide")
    settings = request(components, "red", denoise=False)
    peaks = {
        q: memory_need(components, settings, q, stored=True).peak(True) for q in (8, "mixed", 4)
    }
    assert peaks[4] < peaks["mixed"] < peaks[8] < memory_need(components, settings).peak(True)
    for recipe, peak in peaks.items():
        plan = plan_memory(components, settings, budget=budget(peak))
        assert f"converted with --quantize {recipe} would fit" in plan.warning
        assert plan.low_ram
    least = plan_memory(components, settings, budget=budget(peaks[4] - 1))
    assert "does not have enough memory" in least.warning and "very slow" in least.warning
    with pytest.raises(OutOfMemoryError, match="does not have enough memory"):
        plan_memory(components, settings, budget=budget(peaks[4] - 1, physical=peaks[4] - 1))
    several = request(components, "red", denoise=False, num_images=50)
    plan = plan_memory(
        components, several, budget=budget(memory_need(components, settings).peak(True))
    )
    assert "One picture at a time would fit" in plan.warning
    # Quantizing while loading has the whole of the weights in memory first.
    loading = Components(folder, "wide", quantize=4)
    assert memory_need(loading, settings).loading == component_bytes(folder / "flow")
    assert memory_need(loading, settings).flow == component_bytes(folder / "flow", None, 4)


def test_one_component_at_a_time_needs_the_largest_alone():
    need = Need(10, 20, 5, encoding=3, sampling=2, denoising=8, decoding=30, loading=0)
    assert need.peak(low_ram=True) == 35 and need.peak(low_ram=False) == 65
    assert replace(need, loading=100).peak(low_ram=False) == 115
    assert replace(need, loading=100).peak(low_ram=True) == 100


def released(channels: int = 3072) -> FlowConfig:
    """The released 3B text-to-image flow."""
    sizes = dict(channels=channels, heads=48, kv_heads=48, head_dim=64, mlp_channels=4 * channels)
    blocks = tuple(BlockConfig(layers=n, conditioned=n == 24, **sizes) for n in (2, 2, 2, 2, 2, 24))
    return FlowConfig("starflow", 4, 1, 32, blocks, 0.3, text_channels=2048, text_length=128)


def test_the_released_model_in_gigabytes():
    """Keys and values of 24 layers, 1152 places and two branches are 0.68 GB by hand."""
    flow, cache = released(), 2 * 24 * 3072 * 1152 * 2 * 2
    assert cache < sampling_bytes(flow, Grid(32, 32), 1, True, 2) < 6 * cache
    assert sampling_bytes(flow, Grid(32, 32), 1, False, 2) * 2 == sampling_bytes(
        flow, Grid(32, 32), 1, True, 2
    )
    one, four = (
        denoising_bytes(flow, Grid(32, 32), 1, False),
        denoising_bytes(flow, Grid(32, 32), 4, False),
    )
    assert one == four, "pictures are denoised one by one where that is much"
    vae = VAEConfig((128, 256, 512, 512))
    assert 0.2e9 < decoding_bytes(vae, 32, 32) < 1e9
    large = decoding_bytes(vae, 256, 256) - decoding_bytes(vae, 64, 64)
    assert large < 3 * 2048 * 2048 * 3 * 4, "a large picture is decoded in tiles"


@pytest.mark.parametrize(("recipe", "gigabytes", "fits"), [
    (4, 8, True), (None, 16, True), (None, 8, False),
])  # fmt: skip
def test_the_released_model_fits(tmp_path, recipe, gigabytes, fits):
    """As ``generate`` plans a picture on a GPU, with --low-ram, in the share of its memory that
    macOS recommends for one program (two thirds of a small Mac). ``recipe`` None: 16 bits."""
    plan = full_size.planned(tmp_path / "released", recipe, gigabytes * 10**9 * 2 // 3, True)
    assert (plan.warning is None) is fits, plan.warning
    assert plan.low_ram and plan.need.peak(True) > plan.need.flow > 2e9
    assert plan.need.vae > 0.3e9 and plan.need.text_encoder > 0.7e9


def test_the_table_of_the_documentation(tmp_path):
    """Gigabytes of the released model in docs/conversion.md."""
    text = (Path(__file__).parents[1] / "docs" / "conversion.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (bfloat16|8|mixed|4)(?: bits)? ((?:\| [\d.]+ ){5})\|$", text, re.M)
    stated = {name: [float(n) for n in re.findall(r"[\d.]+", numbers)] for name, numbers in rows}
    computed = full_size.need(tmp_path / "released")
    columns = ("text_encoder", "flow", "vae", "peak", "peak with --low-ram")
    assert stated == {
        name: [round(parts[column], 1) for column in columns] for name, parts in computed.items()
    }


def test_the_device_has_memory():
    found = device_budget()
    assert 1e8 < found.bytes <= found.physical and found.device
