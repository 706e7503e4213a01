"""The estimated memory of a request agrees with the measured one, and the advice is right."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace

import mlx.core as mx
import pytest
from bundles import colours_bundle
from mlx.utils import tree_flatten

import mlx_starflow as sf
from mlx_starflow.bundle.load import load_component, write_component
from mlx_starflow.config import BlockConfig, FlowConfig, VAEConfig
from mlx_starflow.device import wired as wired_module
from mlx_starflow.errors import OutOfMemoryError
from mlx_starflow.flow import Flow
from mlx_starflow.flow.grid import Grid
from mlx_starflow.generation import memory_need as need_module
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
    ("options", "pictures"),
    [
        (dict(dtype="float32"), 1),
        pytest.param(dict(quantize=4), 1, marks=pytest.mark.slow),
        pytest.param(dict(dtype="float32"), 3, marks=pytest.mark.slow),
        pytest.param(dict(dtype="float16"), 1, marks=pytest.mark.slow),
        pytest.param(dict(quantize=8), 1, marks=pytest.mark.slow),
    ],
)
def test_the_estimate_is_within_15_percent_of_the_peak(options, pictures):
    """On the embedded model, whose arrays are larger than what every program has about it; with all
    components loaded, as they are from the second picture on."""
    mx.clear_cache()
    before = mx.get_active_memory()
    words = dict(sampler="sequential", num_images=pictures)
    with sf.load(**options) as pipe:
        pipe.generate("a fox in snow", seed=1, **words)
        peaks = pipe.generate("a fox in snow", seed=1, **words).metadata["peak_memory_bytes"]
    components = Components(
        EMBEDDED["default"], "default", options.get("dtype"), options.get("quantize")
    )
    need = memory_need(components, request(components, "a fox in snow", **words)).peak(False)
    assert need == pytest.approx(max(peaks.values()) - before, rel=0.15)


@pytest.mark.parametrize("side", [16, 32])
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


def test_dropping_a_component_frees_it_without_the_collector(colours, monkeypatch):
    """Compiled steps and all: their block must not be kept alive by them."""
    monkeypatch.setattr(conditional, "on_gpu", lambda: True)  # as on a GPU: compiled
    gc.collect()
    gc.disable()
    try:
        held = []
        with sf.load(colours, low_ram=True) as pipe:
            for seed in range(4):
                pipe.generate("red", seed=seed, sampler="sequential")
                held.append(mx.get_active_memory())
        flow = Components(colours, "colours").flow
        whole = sum(array.nbytes for _, array in tree_flatten(flow.parameters()))
        gone = weakref.ref(flow)
        options = sf.SampleOptions(sampler="sequential", compile=True)
        for _ in sf.invert_steps(flow, mx.zeros((1, 12, 12, 3)), mx.zeros((1, 1, 5)), options):
            pass
        assert any("_steps" in block.__dict__ for block in flow.blocks)
        del flow
        assert gone() is None
    finally:
        gc.enable()
    assert max(held[1:]) - min(held[1:]) < 0.2 * whole, held


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


@pytest.mark.parametrize(("bits", "gigabytes"), [(4.5, 8), (16, 16)])
def test_the_released_model_fits(monkeypatch, bits, gigabytes):
    """With --low-ram, in the share of its memory that macOS recommends for one program (two thirds
    of a small Mac), counted as on a GPU."""
    monkeypatch.setattr(need_module, "on_gpu", lambda: True)
    flow, share = released(), 2 / 3
    matrices = sum(b.layers * 12 * b.channels**2 for b in flow.blocks)
    weights = matrices * bits / 8 + 60e6  # beside the matrices: ends, norms and biases in float32
    work = max(
        sampling_bytes(flow, Grid(32, 32), 1, True, 2),
        denoising_bytes(flow, Grid(32, 32), 1, False),
    )
    text = 1.22e9 * bits / 8 + 0.1e9  # the encoder of flan-t5-xl
    decode = 0.4e9 + decoding_bytes(VAEConfig((128, 256, 512, 512)), 32, 32)
    peak = max(weights + work, text, decode)
    assert peak < share * gigabytes * 1e9, f"{peak / 1e9:.2f} GB"


def test_the_device_has_memory():
    found = device_budget()
    assert 1e8 < found.bytes <= found.physical and found.device
