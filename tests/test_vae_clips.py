"""The autoencoder of clips: what holds for any weights, and the published numbers."""

import dataclasses
from pathlib import Path

import mlx.core as mx
import pytest
from clip_arrays import assert_met, channels_last
from conftest import case_dir, case_tensors
from mlx.utils import tree_map_with_path

from convert.from_hub import convert_component
from mlx_starflow.bundle.load import load_component
from mlx_starflow.errors import ConfigError, ImageError, UsageError
from mlx_starflow.vae import AutoencoderWan, WanConfig, build_vae, memory, read_vae_config
from mlx_starflow.vae.memory import wan_decoding_bytes, wan_kept_numbers
from mlx_starflow.vae.tiling import SMALLEST, clip_tile, tile_cells, tile_starts
from mlx_starflow.vae.wan import patches, pixels
from mlx_starflow.vae.wan_blocks import Past

CONFIG = WanConfig(4, 5, 3, (0.1, -0.2, 0.3), (0.5, 1.0, 2.0), temporal_scale=0.6)


@pytest.fixture(scope="module", params=[(1, 2, 4, 4), (1, 1, 2, 2)], ids=["published", "narrow"])
def vae(request) -> AutoencoderWan:
    """Random weights, biases and gammas included."""
    config = dataclasses.replace(CONFIG, multiples=request.param)
    vae, key = AutoencoderWan(config), iter(mx.random.split(mx.random.key(0), 400))

    def drawn(name: str, value: mx.array) -> mx.array:
        std = 0.2 if value.ndim == 1 else 1.5 / (value.size / value.shape[0]) ** 0.5
        return name.endswith("gamma") + std * mx.random.normal(value.shape, key=next(key))

    vae.update(tree_map_with_path(drawn, vae.parameters()))
    mx.eval(vae.parameters())
    return vae


def clip(frames: int = 9, height: int = 32, width: int = 48, batch: int = 1) -> mx.array:
    return mx.random.uniform(-1, 1, (batch, frames, height, width, 3), key=mx.random.key(3))


def latent(frames: int = 3, batch: int = 1) -> mx.array:
    return mx.random.normal((batch, frames, 2, 3, 3), key=mx.random.key(4))


def close(a: mx.array, b: mx.array) -> bool:
    return a.shape == b.shape and mx.abs(a - b).max().item() <= 2e-5 * mx.abs(b).max().item()


def test_shapes_and_lengths(vae):
    assert vae.encode(clip()).shape == (1, 3, 2, 3, 3)
    assert vae.encode(clip()[:, 0]).shape == (1, 2, 3, 3)
    assert vae.decode(latent()).shape == (1, 9, 32, 48, 3)
    assert vae.decode(latent()[:, 0]).shape == (1, 32, 48, 3)
    assert [f.shape[1] for f in vae.decode_stream(latent())] == [1, 4, 4]
    # Frames after the last 4k + 1 are left out.
    assert close(vae.encode(clip()[:, :8]), vae.encode(clip()[:, :5]))


@pytest.mark.parametrize("step", [2, 0])
def test_streamed_equals_one_shot(vae, step):
    assert close(vae.encode(clip()), vae.encode(clip(), step=step))
    assert close(vae.decode(latent()), vae.decode(latent(), step=step))


def test_nothing_depends_on_later_frames(vae):
    assert close(vae.decode(latent())[:, :5], vae.decode(latent()[:, :2]))
    assert close(vae.encode(clip())[:, :2], vae.encode(clip()[:, :5]))
    assert close(vae.encode(clip())[:, 0], vae.encode(clip()[:, 0]))
    assert close(vae.decode(latent())[:, 0], vae.decode(latent()[:, 0]))


def test_frame_zero_is_not_seen_by_the_doubling_of_time(vae):
    """With everything but the up time convolutions' past equal, frames 1 ... see zeros before."""
    up = vae.decoder.up_blocks[0].upsampler
    width = vae.config.decoder_base_dim * vae.config.decoder_multiples[0]
    x = mx.random.normal((1, 2, 2, 3, width), key=mx.random.key(7))
    other = mx.concatenate([x[:, :1] + 1, x[:, 1:]], axis=1)
    a, b = up(x, Past()), up(other, Past())
    assert mx.array_equal(a[:, 1:], b[:, 1:]) and not mx.allclose(a[:, 0], b[:, 0])


def test_temporal_scale_is_of_frames_after_the_first(vae):
    plain = AutoencoderWan(dataclasses.replace(vae.config, temporal_scale=1.0))
    plain.update(vae.parameters())
    x = plain.encode(clip())
    scaled = mx.concatenate([x[:, :1], 0.6 * x[:, 1:]], axis=1)
    assert close(vae.encode(clip()), scaled)
    assert close(vae.decode(scaled), plain.decode(x))


def test_rows_do_not_depend_on_their_neighbours(vae):
    both = latent(batch=2)
    assert close(vae.decode(both)[1:], vae.decode(both[1:]))
    assert close(mx.concatenate(list(vae.decode_stream(both)), axis=1), vae.decode(both))
    both = clip(batch=2)
    assert close(vae.encode(both)[1:], vae.encode(both[1:]))


def test_patches_are_colour_column_row(vae):
    x = clip(frames=1, height=4, width=6)
    found = patches(x)[0, 0, 1, 2]
    for colour in range(3):
        for column in range(2):
            for row in range(2):
                value = x[0, 0, 2 + row, 4 + column, colour]
                assert found[(colour * 2 + column) * 2 + row] == value
    assert mx.array_equal(pixels(patches(x)), x)


def test_tiles(vae):
    """Norms look at one position, so tiles differ only where the reach of the convolutions, about
    13 cells, is cut; and little there, since the weight of a tile falls towards its edge."""
    z = mx.random.normal((1, 2, 8, 40, 3), key=mx.random.key(8))
    whole, tiled = vae.decode(z, tile=0), vae.decode(z, tile=32)
    # Two tiles, of the cells 0 to 31 and 8 to 39.
    for cells in (slice(0, 8), slice(20, 22), slice(32, 40)):
        columns = slice(16 * cells.start, 16 * cells.stop)
        assert close(tiled[..., columns, :], whole[..., columns, :])
    assert mx.abs(tiled - whole).max().item() < 0.02 * mx.abs(whole).max().item()
    assert close(vae.decode(z, tile=40), whole)


def test_tiles_are_streamed_each_with_its_own_past(vae):
    z = mx.random.normal((1, 3, 9, 12, 3), key=mx.random.key(8))
    one_shot = vae.decode(z, tile=8, step=0)
    assert close(mx.concatenate(list(vae.decode_stream(z, tile=8)), axis=1), one_shot)
    assert not close(vae.decode(z, tile=0), one_shot)


def test_two_tiles_cover_the_longer_side_of_a_clip():
    for side in range(1, 300):
        tile = clip_tile(side, side // 2)
        assert len(tile_starts(side, tile, tile // 4)) == (1 if side <= SMALLEST else 2)
    assert tile_cells(30, 53, clip_tile(30, 53)) == (30 * 31, 2 * 30 * 31)
    assert tile_cells(40, 40, clip_tile(40, 40)) == (23**2, 4 * 23**2)
    assert tile_cells(8, 40, 0) == (320, 320)


def test_what_does_not_fit_is_refused(vae):
    for shape in ((1, 9, 31, 48, 3), (1, 0, 32, 48, 3), (1, 9, 32, 48, 1)):
        with pytest.raises(ImageError):
            vae.encode(mx.zeros(shape))
    for shape in ((1, 3, 2, 3, 4), (1, 0, 2, 3, 3), (2, 3)):
        with pytest.raises(UsageError):
            vae.decode(mx.zeros(shape))


def test_settings():
    settings = CONFIG.to_dict()
    assert read_vae_config(settings, "vae/config.json") == CONFIG
    for key, value in (
        ("latents_mean", [1.0]), ("latents_std", [0.0, 1, 1]), ("base_dim", 0),
        ("multiples", [1, 2, 4]), ("multiples", [1, 2, 4, 0]), ("multiples", [1, 1, 1, 2]),
        ("multiples", [1, 2, 3, 3]), ("multiples", [1, 1, 8, 8]),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=key):
            read_vae_config(settings | {key: value}, "vae/config.json")


def test_memory_is_that_of_the_frames_kept(vae, monkeypatch):
    past = [Past(), Past()]
    vae.decoder.upper(vae.decoder.middle(latent(), past[0]), past[1])
    kept = sum(a.size for p in past for a in p.arrays())
    assert kept == wan_kept_numbers(vae.config, 2, 3)
    released = WanConfig(160, 256, 48, (0.0,) * 48, (1.0,) * 48)
    assert wan_kept_numbers(released, 30, 53) == pytest.approx(726e6, rel=0.01)
    monkeypatch.setattr(memory, "on_gpu", lambda: True)
    assert 8e9 < wan_decoding_bytes(released, 30, 53) < 11e9


@pytest.mark.parametrize("where", ["diffusers", "Wan2.2_VAE.pth", "."])
def test_published_numbers(where, tmp_path):
    """Both published layouts, one shot and streamed."""
    source, tensors = case_dir("wan_vae_tiny") / where, case_tensors("wan_vae_tiny")
    convert_component(source, "vae", tmp_path / "vae")
    vae = load_component(tmp_path / "vae", lambda data: build_vae(data, "vae/config.json"))
    vae.config = dataclasses.replace(vae.config, temporal_scale=0.6)
    mean, std = mx.array(vae.config.latents_mean), mx.array(vae.config.latents_std)
    clip = channels_last(tensors["clip"])
    for step in (1, 2, 0):
        found, logvar = vae.moments(clip, step)
        assert_met((found - mean) / std, tensors["encode.mean"])
        assert_met(logvar, tensors["encode.logvar"])
        assert_met(vae.encode(clip, step), tensors["encode.scaled"])
        assert_met(vae.decode(channels_last(tensors["latent"]), 0, step), tensors["decode"])
    assert_met(vae.encode(channels_last(tensors["picture"])), tensors["picture.encode"])
    assert_met(vae.decode(channels_last(tensors["picture_latent"])), tensors["picture.decode"])


def test_the_autoencoder_of_wan_2_1_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKLWan", "z_dim": 16}')
    with pytest.raises(ConfigError, match=r"is_residual.*WAN2\.1"):
        convert_component(Path(tmp_path), "vae", tmp_path / "out")
