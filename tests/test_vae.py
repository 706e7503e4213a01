"""The autoencoder meets diffusers' numbers, and tiles, batches and bands change nothing else."""

from __future__ import annotations

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from conftest import case_dir, case_tensors

from mlx_starflow.config import VAEConfig
from mlx_starflow.errors import ImageError, UsageError
from mlx_starflow.vae import AutoencoderKL, conv, model, tiling

TOLERANCE = 1e-4  # of the largest absolute value

FAMILIES = {
    "attention": VAEConfig((8, 16), norm_num_groups=4, layers_per_block=1),
    "no attention": VAEConfig((8, 8), norm_num_groups=4, mid_block_add_attention=False),
    "no quant conv": VAEConfig(
        (8, 12, 16), 6, norm_num_groups=2, use_quant_conv=False, use_post_quant_conv=False
    ),
    "one level, one channel": VAEConfig((8,), 1, 1, 1, norm_num_groups=8, scaling_factor=2.0),
}


@pytest.fixture(scope="module")
def reference() -> tuple[AutoencoderKL, dict[str, np.ndarray]]:
    folder = case_dir("vae_tiny")
    data = json.loads((folder / "config.json").read_text())
    vae = AutoencoderKL(VAEConfig.from_dict({k: data[k] for k in VAEConfig.__annotations__}))
    weights = mx.load(str(folder / "diffusion_pytorch_model.safetensors"))
    vae.load_weights(
        [(k, v.transpose(0, 2, 3, 1) if v.ndim == 4 else v) for k, v in weights.items()]
    )
    tensors = case_tensors("vae_tiny")
    return vae, {k: v.transpose(0, 2, 3, 1) for k, v in tensors.items()}


def relative_error(found: mx.array, expected: np.ndarray) -> float:
    return float(np.abs(np.array(found) - expected).max() / np.abs(expected).max())


def random_vae(config: VAEConfig) -> AutoencoderKL:
    """A model whose norms and biases matter, unlike freshly initialised ones."""
    vae = AutoencoderKL(config)
    key = mx.random.key(3)

    def jitter(value: mx.array) -> mx.array:
        nonlocal key
        key, use = mx.random.split(key)
        return value + 0.1 * mx.random.normal(value.shape, key=use)

    vae.apply(jitter)
    mx.eval(vae.parameters())
    return vae


def test_moments_are_those_of_diffusers(reference):
    vae, tensors = reference
    mean, std = vae.encode_moments(mx.array(tensors["image"]))
    assert relative_error(mean, tensors["encode.mean"]) < TOLERANCE
    assert relative_error(std, tensors["encode.std"]) < TOLERANCE
    assert np.array_equal(np.array(vae.encode(mx.array(tensors["image"]))), np.array(mean))


def test_decoded_image_is_that_of_diffusers(reference):
    vae, tensors = reference
    assert relative_error(vae.decode(mx.array(tensors["latent"])), tensors["decode"]) < TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_of_every_family(name):
    config = FAMILIES[name]
    vae = random_vae(config)
    image = mx.random.uniform(-1, 1, (2, 8, 16, config.in_channels), key=mx.random.key(0))
    mean, std = vae.encode_moments(image)
    f = config.factor
    assert mean.shape == std.shape == (2, 8 // f, 16 // f, config.latent_channels)
    assert mean.dtype == std.dtype == mx.float32
    assert mx.all(std > 0).item()
    decoded = vae.decode(mean)
    assert decoded.shape == image.shape and decoded.dtype == mx.float32
    assert ("quant_conv" in vae) == config.use_quant_conv
    assert ("attentions" in vae.decoder.mid_block) == config.mid_block_add_attention


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_does_not_depend_on_its_neighbours(name):
    vae = random_vae(FAMILIES[name])
    latent = mx.random.normal((3, 4, 6, vae.config.latent_channels), key=mx.random.key(1))
    together = np.array(vae.decode(latent))
    for i in range(3):
        assert np.array_equal(np.array(vae.decode(latent[i : i + 1]))[0], together[i])


def test_half_precision_weights_give_float32_images_close_to_the_exact_ones(reference):
    vae, tensors = reference
    half = AutoencoderKL(vae.config)
    half.update(vae.parameters())
    half.set_dtype(mx.bfloat16)
    image = half.decode(mx.array(tensors["latent"][:1]))
    assert image.dtype == mx.float32
    error = relative_error(image, tensors["decode"][:1])
    assert 0 < error < 0.1, f"bfloat16 moved the image by {error:.3g} of its range"


def test_scaling_factor_is_applied_on_both_sides():
    config = VAEConfig((8,), norm_num_groups=4, scaling_factor=1.0)
    plain = random_vae(config)
    scaled = AutoencoderKL(VAEConfig((8,), norm_num_groups=4, scaling_factor=0.25))
    scaled.update(plain.parameters())
    image = mx.random.uniform(-1, 1, (1, 8, 8, 3), key=mx.random.key(4))
    for a, b in zip(plain.encode_moments(image), scaled.encode_moments(image), strict=True):
        assert mx.allclose(a * 0.25, b, atol=1e-6).item()
    latent = plain.encode(image)
    assert mx.allclose(plain.decode(latent), scaled.decode(latent * 0.25), atol=1e-5).item()


def test_a_tile_larger_than_the_latent_changes_nothing(reference):
    vae, tensors = reference
    latent = mx.array(tensors["latent"][:1])
    assert mx.array_equal(vae.decode(latent, tile=10), vae.decode(latent, tile=0)).item()


def test_tiled_decoding_nears_the_whole_as_tiles_grow(reference):
    vae, _ = reference
    latent = mx.random.normal((1, 20, 20, 4), key=mx.random.key(8))
    whole = np.array(vae.decode(latent, tile=0))

    def difference(tile: int) -> float:
        tiled = np.array(vae.decode(latent, tile=tile))
        assert tiled.shape == whole.shape
        return float(np.abs(tiled - whole).mean() / np.abs(whole).mean())

    # Only the norms' statistics differ. Noise through random weights shows the worst of it.
    small, large = difference(8), difference(16)
    assert 0 < large < min(0.05, small / 2), (
        f"tiles of 8 and 16 changed the image by {small}, {large}"
    )


def test_large_latents_are_tiled_by_themselves(monkeypatch):
    vae = random_vae(FAMILIES["attention"])
    latent = mx.random.normal((1, 20, 12, 4), key=mx.random.key(2))
    whole = vae.decode(latent)
    assert mx.array_equal(whole, vae.decode(latent, tile=0)).item()
    monkeypatch.setattr(model, "LARGE", 200)
    monkeypatch.setattr(model, "TILE", 8)
    automatic = vae.decode(latent)
    assert mx.array_equal(automatic, vae.decode(latent, tile=8)).item()
    assert not mx.array_equal(automatic, whole).item()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 31), (40, 17), (16, 5)])
def test_tiles_of_local_work_blend_into_the_exact_result(height, width):
    x = mx.random.normal((2, height, width, 3), key=mx.random.key(5))

    def enlarge(part: mx.array) -> mx.array:
        return mx.repeat(mx.repeat(part, 2, axis=1), 2, axis=2)

    blended = tiling.in_tiles(x, enlarge, 2, tile=8)
    assert mx.allclose(blended, enlarge(x), atol=1e-6).item()


def test_tiles_cover_a_side_and_have_equal_size():
    for length in range(1, 60):
        starts = tiling.tile_starts(length, 8, 2)
        assert starts[0] == 0 and starts == sorted(set(starts))
        assert starts[-1] + 8 == length or starts == [0]
        assert all(b - a <= 6 for a, b in zip(starts, starts[1:], strict=False))


@pytest.mark.parametrize("band", [1, 300, 1 << 20])
def test_convolution_in_bands_is_the_convolution(monkeypatch, band):
    monkeypatch.setattr(conv, "BAND_NUMBERS", band)
    layer = conv.Conv3x3(5, 7)
    layer.bias = mx.random.normal((7,), key=mx.random.key(6))
    x = mx.random.normal((2, 9, 4, 5), key=mx.random.key(7))
    assert mx.allclose(layer(x), nn.Conv2d.__call__(layer, x), atol=1e-5).item()


def test_sizes_that_do_not_fit_are_refused(reference):
    vae, _ = reference
    with pytest.raises(ImageError, match="multiples of 8"):
        vae.encode(mx.zeros((1, 64, 60, 3)))
    with pytest.raises(ImageError, match=r"expected \(B, H, W, 3\)"):
        vae.encode(mx.zeros((1, 64, 64, 4)))
    with pytest.raises(UsageError, match=r"expected \(B, h, w, 4\)"):
        vae.decode(mx.zeros((1, 4, 8, 8)))
    with pytest.raises(UsageError, match="smallest tile is 8"):
        vae.decode(mx.zeros((1, 16, 16, 4)), tile=4)
