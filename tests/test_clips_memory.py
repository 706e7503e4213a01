"""The memory of clips: what is planned agrees with what is taken, and the advice is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import full_size_clips
import mlx.core as mx
import pytest
from bundles import clips_bundle
from command import run  # noqa: F401
from families import random_flow

import mlx_starflow as sf
from mlx_starflow.config import BlockConfig, FlowConfig
from mlx_starflow.errors import OutOfMemoryError
from mlx_starflow.flow.cache import packings
from mlx_starflow.flow.grid import Grid
from mlx_starflow.generation import memory as memory_module
from mlx_starflow.generation.components import Components
from mlx_starflow.generation.memory import Budget, plan_memory
from mlx_starflow.generation.memory_need import KEPT_IN, keys_bytes, memory_need, sampling_bytes
from mlx_starflow.generation.settings import resolve
from mlx_starflow.pictures.clips import clip_metadata, read_clip
from mlx_starflow.vae import AutoencoderWan, WanConfig
from mlx_starflow.vae.memory import wan_decoding_bytes, wan_kept_numbers
from mlx_starflow.vae.tiling import clip_tile

HUGE = 10**15


def budget(size: int, physical: int = HUGE) -> Budget:
    return Budget(size, physical, "The test device")


def request(components: Components, **options):
    options = {"frames": 41, **options}
    return resolve(
        components.config, components.flow_config, components.factor, "red", 1, **options
    )


@pytest.fixture(scope="module")
def components(tmp_path_factory) -> Components:
    """Of a model in which the keys of long clips take most of the memory."""
    folder = tmp_path_factory.mktemp("bundles") / "deep"
    return Components(clips_bundle(folder, window=21, layers=40), "deep")


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Components:
    """The released model in 16 bits, as empty files."""
    folder = tmp_path_factory.mktemp("released") / "bundle"
    full_size_clips.lay_out(folder, None, full_size_clips.Size())
    return Components(folder, "starflow-v", "bfloat16")


def peak(components: Components, recipe=None, **options) -> int:
    settings = request(components, **options)
    return memory_need(components, settings, recipe, stored=recipe is not None).peak(True)


# the plan


def test_a_shorter_clip_that_fits_is_named(components):
    plan = plan_memory(components, request(components), budget=budget(peak(components, frames=17)))
    assert plan.low_ram and re.search(r"\b17 frames \(0\.0 GB\)", plan.warning), plan.warning
    assert "21 frames" not in plan.warning and "--low-ram, " in plan.warning
    assert plan.warning.endswith(" would fit. It may be very slow.")


def test_fewer_bits_of_the_keys_are_named_if_they_suffice(components):
    for bits in (16, 8, 4):
        room = budget(peak(components, kv_bits=bits))
        plan = plan_memory(components, request(components), budget=room)
        assert f"--kv-bits {bits} (" in plan.warning
        asked = request(components, kv_bits=bits)
        assert plan_memory(components, asked, low_ram=True, budget=room).warning is None


def test_heads_that_cannot_be_packed_are_kept_in_16_bits(components):
    flow = components.flow_config
    assert packings(flow) == (16, 8, 4)
    narrow = FlowConfig.from_dict(flow.to_dict() | {"blocks": [
        block.to_dict() | {"head_dim": 24} for block in flow.blocks
    ]})  # fmt: skip
    assert packings(narrow) == (16,)


def test_a_score_that_needs_more_than_all_memory_is_refused(components):
    most = peak(components, denoiser="score")
    assert most > peak(components)
    asked = request(components, denoiser="score")
    with pytest.raises(OutOfMemoryError, match=r"--denoiser learned \(") as refused:
        plan_memory(components, asked, budget=budget(most - 1, physical=most - 1))
    assert "frames (" in str(refused.value)
    assert plan_memory(components, asked, budget=budget(most - 1)).warning.endswith("very slow.")


def test_one_clip_at_a_time_is_named(components):
    several = request(components, num_images=3)
    plan = plan_memory(components, several, budget=budget(peak(components)))
    assert "One clip at a time would fit" in plan.warning


def test_what_is_named_for_the_released_model(released):
    """81 frames at 16:9 need 45 GB; 36 GB are what macOS recommends of 48."""
    asked = dict(frames=81, aspect_ratio="16:9")
    with full_size_clips.counted_for_a_gpu():
        plan = plan_memory(released, request(released, **asked), budget=budget(36 * 10**9))
        small = plan_memory(released, request(released, **asked), budget=budget(24 * 10**9))
        sizes = {
            "--kv-bits 8": peak(released, kv_bits=8, **asked),
            "a model converted with --quantize mixed": peak(released, "mixed", **asked),
            "53 frames": peak(released, frames=53, aspect_ratio="16:9"),
            "a model converted with --quantize 8 and --kv-bits 4": peak(
                released, 8, kv_bits=4, **asked
            ),
            "21 frames": peak(released, frames=21, aspect_ratio="16:9"),
        }
    told = {name: f"{name} ({size / 1e9:.1f} GB)" for name, size in sizes.items()}
    first, second, third, both, short = told.values()
    assert f"With --low-ram, {first}, {second} or {third} would fit." in plan.warning
    assert f"With --low-ram, {both} or {short} would fit." in small.warning


def test_the_keys_of_the_released_model():
    deep = full_size_clips.architecture(full_size_clips.Size()).flow.blocks[-1]
    sizes = {bits: keys_bytes(deep, 256 + 21 * 30 * 53, 2, size) for bits, size in KEPT_IN.items()}
    found = {bits: round(size / 1e9, 1) for bits, size in sizes.items()}
    assert found == {16: 26.5, 8: 14.1, 4: 7.4}


def test_the_table_of_the_documentation(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "video.md").read_text(encoding="utf-8")
    for row in full_size_clips.need(tmp_path / "empty", full_size_clips.Size()):
        weights = [row.peak["bfloat16"][0], *row.peak["4-bit"]]
        keys = " / ".join(f"{size:.1f}" for size in row.keys)
        cells = [str(row.frames), keys, *(f"{size:.0f}" for size in weights)]
        assert f"| {' | '.join(cells)} |" in text


# tiles


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A model whose frames have 12 x 12 latent cells, and so may be decoded in tiles."""
    return clips_bundle(tmp_path_factory.mktemp("bundles") / "large", grid_size=12)


def test_a_clip_is_decoded_in_tiles_where_only_these_fit(large):
    components = Components(large, "large")
    whole, tiled = (peak(components, frames=5, vae_tiling=t) for t in (False, True))
    assert tiled < whole
    asked = request(components, frames=5)
    plan = plan_memory(components, asked, budget=budget(whole))
    assert not plan.tiled and "--vae-tiling" not in plan.warning
    plan = plan_memory(components, asked, budget=budget(tiled))
    assert plan.tiled and plan.low_ram and plan.need.peak(True) == tiled
    assert "decoded in tiles (--low-ram --vae-tiling, " in plan.warning
    plan = plan_memory(components, asked, budget=budget(tiled - 1))
    assert plan.tiled and "even with --low-ram --vae-tiling" in plan.warning
    wanted = request(components, frames=5, vae_tiling=True)
    plan = plan_memory(components, wanted, budget=budget(HUGE))
    assert plan.tiled and plan.warning is None
    picture = request(components, frames=None)
    assert not plan_memory(components, picture, budget=budget(tiled)).tiled


def test_tiles_that_memory_asks_for_are_stored_with_the_clip(large, run, monkeypatch):  # noqa: F811
    size = peak(Components(large, "large"), frames=5, vae_tiling=True)
    monkeypatch.setattr(memory_module, "device_budget", lambda: budget(size))
    film = ("video", "red", "-m", large, "--frames", 5, "--seed", 1, "--sampler", "sequential")
    made = run(*film, "--guidance", 0, "-o", "a")
    assert made.status == 0 and "frames are decoded in tiles" in made.err, made.err
    assert clip_metadata(Path("a"))["vae_tiling"] is True
    monkeypatch.setattr(memory_module, "device_budget", lambda: budget(HUGE))
    again = run("video", "-C", "a", "-o", "b")
    assert again.status == 0 and again.err == "", again.err
    frames = [[frame.tobytes() for frame in read_clip(Path(name))] for name in ("a", "b")]
    assert frames[0] == frames[1]


def test_tiles_need_less_for_the_released_model(monkeypatch):
    monkeypatch.setattr("mlx_starflow.vae.memory.on_gpu", lambda: True)
    vae = WanConfig(160, 256, 48, (0.0,) * 48, (1.0,) * 48)
    for height, width in ((30, 53), (40, 40), (26, 61)):
        tiled = wan_decoding_bytes(vae, height, width, clip_tile(height, width))
        assert tiled < 0.8 * wan_decoding_bytes(vae, height, width)


# the estimates


def block(channels: int, layers: int, **options) -> BlockConfig:
    heads = channels // 64
    return BlockConfig(layers, channels, heads, heads, 64, 4 * channels, final_norm=True, **options)


MEDIUM = FlowConfig(
    model_type="starflow",
    in_channels=4,
    patch_size=1,
    grid_size=8,
    blocks=(
        block(64, 2, local=True, flip=True),
        block(64, 2, local=True),
        block(128, 6, conditioned=True, flip=True),
    ),
    noise_std=0.5,
    text_channels=32,
    text_length=16,
    sos=True,
    scale="softplus",
    soft_clip=4.0,
    frames=5,
    temporal_causal=2,
)


def taken(work: Callable[[], object]) -> int:
    """Peak bytes of memory that some work takes."""
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    work()
    return mx.get_peak_memory() - before


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 8])
def test_what_sampling_takes_is_within_15_percent(bits):
    flow, keys = random_flow(MEDIUM), mx.random.split(mx.random.key(0))
    z = mx.random.normal((1, 5, 8, 8, 4), key=keys[0])
    context = mx.random.normal((2, 16, 32), key=keys[1])
    mx.eval(z, context)
    options = dict(guidance=2.0, sampler="sequential", kv_bits=bits)

    def sample() -> None:  # three frames are given, which takes no more, and less time
        mx.eval(sf.invert(flow, z, context, given=z[:, :3], **options))

    item = KEPT_IN[bits] if bits else 4
    planned = sampling_bytes(MEDIUM, Grid(8, 8, 5), 1, True, item)
    assert planned == pytest.approx(taken(sample), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("tiled", [False, True])
def test_what_decoding_takes_is_within_15_percent(tiled):
    config = WanConfig(8, 16, 4, (0.0,) * 4, (1.0,) * 4)
    vae, height, width = AutoencoderWan(config), 12, 20
    latents = mx.random.normal((1, 3, height, width, 4), key=mx.random.key(0))
    mx.eval(vae.parameters(), latents)
    tile = clip_tile(height, width) if tiled else 0

    def decode() -> None:
        for frames in vae.decode_stream(latents, tile):
            mx.eval(frames)

    planned = wan_decoding_bytes(config, height, width, tile)
    assert planned == pytest.approx(taken(decode), rel=0.15)


def test_past_frames_are_kept_without_the_arrays_that_they_were_cut_from():
    """What is held between two latent frames is what is counted as kept, but for 16 KB an array;
    with these arrays it would be three times as much."""
    config = WanConfig(4, 16, 4, (0.0,) * 4, (1.0,) * 4)
    vae = AutoencoderWan(config)
    latents = mx.random.normal((1, 3, 6, 6, 4), key=mx.random.key(0))
    mx.eval(vae.parameters(), latents)
    before = mx.get_active_memory()
    stream = vae.decode_stream(latents, 0)
    frames = [next(stream) for _ in range(2)]
    held = mx.get_active_memory() - before - sum(f.nbytes for f in frames)
    kept = 4 * wan_kept_numbers(config, 6, 6)
    assert kept <= held < 1.2 * kept
