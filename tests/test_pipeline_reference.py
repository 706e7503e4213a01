"""From a PyTorch checkpoint and a prompt to pixels: the numbers of the published pipeline."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from conftest import case_dir, case_info, case_tensors

import mlx_starflow as sf
from mlx_starflow.generation.events import Denoised


@pytest.fixture(scope="module")
def pipe(converted):
    with sf.load(converted, dtype="float32") as pipe:
        yield pipe


@pytest.fixture(scope="module")
def reference():
    return case_info("pipeline_tiny"), case_tensors("pipeline_tiny")


def last(array: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (B, H, W, C)."""
    return array.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("sampler", ["sequential", "jacobi"])
def test_image_from_the_given_noise(pipe, reference, sampler):
    """The jacobi sampler's own settings are the published ones."""
    case, arrays = reference
    result = pipe.generate(
        case["prompts"], noise=last(arrays["noise"]), guidance=case["cfg"], sampler=sampler,
        noise_std=case["noise_std"], denoiser="score",
    )  # fmt: skip
    tolerance = 1e-4 if sampler == "sequential" else 2e-3
    for name, found in (("latent", result.latents), ("denoised", result.denoised)):
        expected = last(arrays[f"{sampler}.{name}"])
        error = np.abs(np.array(found) - expected).max() / np.abs(expected).max()
        assert error < tolerance, f"{name}: {error:.1e}"
    pixels = np.stack([np.asarray(image) for image in result.images]) / 255
    error = np.abs(pixels - last(arrays[f"{sampler}.image"])).max()
    assert error <= 1 / 255, f"image: {255 * error:.2f}/255"


def test_text_features(pipe, reference):
    case, arrays = reference
    features = pipe.encode_prompts([*case["prompts"], "", ""])
    error = np.abs(np.array(features) - arrays["text"]).max() / np.abs(arrays["text"]).max()
    assert error < 1e-4


def test_a_long_prompt_is_cut_and_says_so(pipe, reference):
    case, _ = reference
    result = pipe.generate(case["prompts"][1], seed=1, denoise=False)
    assert len(result.warnings) == 1
    assert "it was cut before" in result.warnings[0] and len(result.warnings[0]) < 160
    assert result.metadata["warnings"] == list(result.warnings)
    assert not pipe.generate(case["prompts"][0], seed=1, denoise=False).warnings


@pytest.fixture(scope="module")
def exact(pipe, reference):
    """The latents of the first prompt in float32."""
    case, arrays = reference
    noise = last(arrays["noise"])[:1]
    return pipe.generate(case["prompts"][0], noise=noise, denoise=False).latents


@pytest.mark.parametrize(
    ("dtype", "quantize"),
    [
        ("float16", None),
        (None, 4),
        pytest.param("bfloat16", None, marks=pytest.mark.slow),
        pytest.param(None, 8, marks=pytest.mark.slow),
    ],
)
def test_lower_precision_draws_and_its_drift_is_known(
    converted, exact, reference, dtype, quantize, record_property
):
    case, arrays = reference
    prompt, noise = case["prompts"][0], last(arrays["noise"])[:1]
    with sf.load(converted, dtype=dtype, quantize=quantize) as other:
        result = other.generate(prompt, noise=noise, denoise=False)
    drift = mx.abs(result.latents - exact).mean().item() / mx.abs(exact).mean().item()
    record_property("drift", drift)
    allowed = {"bfloat16": 0.2, "float16": 0.05, 8: 0.2, 4: 1.5}[dtype or quantize]
    assert 0 < drift < allowed, f"{dtype or quantize}: mean drift {drift:.1%} of the latents"
    assert result.metadata["precision"] == (dtype or f"{quantize}-bit")


def test_previews_are_rough_pictures_of_the_latents(pipe):
    *_, denoised, _, _, _ = pipe.stream("a fox in snow", seed=1)
    assert isinstance(denoised, Denoised)
    rough, exact = pipe.preview(denoised.latents)[0], pipe.decode(denoised.latents)[0]
    assert rough.size == exact.size
    one, two = (np.asarray(image, dtype=float).mean(axis=(0, 1)) for image in (rough, exact))
    assert np.abs(one - two).max() < 64, f"mean colours {one} and {two}"


def test_tarflow_checkpoint_draws(tmp_path):
    from convert.bundle import convert_steps
    from convert.options import ConvertOptions

    case = case_info("tarflow_vp")
    source = case_dir("tarflow_vp") / "checkpoint.pth"
    named = tmp_path / (
        f"mnist_model_{case['patch_size']}_{case['channels']}_{case['num_blocks']}_"
        f"{case['layers_per_block']}_{case['noise_std']}.pth"
    )
    named.write_bytes(source.read_bytes())
    *_, report = convert_steps(ConvertOptions(checkpoint=named, output=tmp_path / "out"))
    with sf.load(report.output) as pipe:
        result = pipe.generate(["3", "7"], seed=1, guidance=1.0, annealed=True)
    assert [image.size for image in result.images] == [(12, 12), (12, 12)]
    assert result.images[0].mode == "L"
