"""How the pipeline denoises clips: in pieces of its own, whatever window they are sampled in."""

import mlx.core as mx
import numpy as np
import pytest
from bundles import clips_bundle
from command import run  # noqa: F401
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.editing.vary import finished_clips
from mlx_starflow.generation.components import Components
from mlx_starflow.generation.memory_need import memory_need
from mlx_starflow.pictures.clips import read_clip

PLAIN = dict(sampler="sequential")


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """A model whose denoiser looks back two frames, as far as a window of 2 reaches."""
    return clips_bundle(tmp_path_factory.mktemp("bundles") / "far", denoiser_window=2)


def test_a_clip_is_denoised_in_pieces_of_the_model(filmed):
    with sf.load(filmed) as pipe:
        result = pipe.generate("red", seed=3, frames=13, **PLAIN)
        context = pipe.encode_prompts(["red"], fps=8)
        latents = result.latents
        assert latents.shape[1] == 4 and pipe.config.clips.window == 3
        expected = sf.denoise(pipe.flow, latents, context, window=3)
        whole = sf.denoise(pipe.flow, latents, context)
    assert mx.array_equal(result.denoised, expected)
    assert not mx.allclose(result.denoised, whole, atol=1e-3)


@pytest.mark.parametrize("window", [2, 3, 4])
def test_the_window_of_sampling_is_not_that_of_the_denoiser(far, window):
    """Also one that would be all context: what is sampled may not be lost for that."""
    with sf.load(far) as pipe:
        result = pipe.generate("red", seed=3, frames=17, window=window, context_frames=1, **PLAIN)
        assert result.metadata["window"] == window
        context = pipe.encode_prompts(["red"], fps=8)
        expected = sf.denoise(pipe.flow, result.latents, context, window=3)
        assert mx.array_equal(result.denoised, expected)
        (clip,) = pipe.run(lambda: finished_clips(pipe, result.latents, context, True, window))
        assert np.array_equal(clip, result.clips[0])


@pytest.mark.parametrize(("window", "pieces"), [(2, 3), (4, 4)])
def test_the_score_is_that_of_sequences_as_they_are_sampled(far, window, pieces):
    asked = dict(seed=3, frames=17, denoiser="score", window=window, context_frames=1, **PLAIN)
    with sf.load(far) as pipe:
        result = pipe.generate("red", **asked)
        context = pipe.encode_prompts(["red"], fps=8)
        options = dict(method="score", window=pieces)
        expected = sf.denoise(pipe.flow, result.latents, context, **options)
    assert mx.allclose(result.denoised, expected, atol=1e-5)


def test_a_model_whose_own_window_is_all_context(tmp_path):
    folder = clips_bundle(tmp_path / "all", window=2, denoiser_window=2)
    with sf.load(folder) as pipe:
        result = pipe.generate("red", seed=3, frames=13, **PLAIN)
        context = pipe.encode_prompts(["red"], fps=8)
        assert mx.array_equal(
            result.denoised, sf.denoise(pipe.flow, result.latents, context, window=3)
        )


def test_commands_with_a_short_window(run, far, tmp_path):  # noqa: F811
    asked = ("--window", 2, "--context", 1, "-m", far)
    made = run("video", "red", "--frames", 17, "--seed", 3, *asked, "-o", "a")
    assert made.status == 0, made.err
    between = run("interpolate", "--seed", 1, 2, "--prompt", "red", "--clip-frames", 13,
                  "--frames", 2, *asked, "-o", "row")  # fmt: skip
    assert between.status == 0, between.err
    varied = run("vary", "a", "--prompt", "red", "--strength", 0.2, *asked, "-o", "b")
    assert varied.status == 0, varied.err
    lengths = [len(read_clip(tmp_path / name)) for name in ("a", "row", "b")]
    assert lengths == [17, 13, 17]


def test_memory_is_counted_for_the_pieces(far):
    """Of the denoiser, whatever the window of sampling; of the score, for that window."""
    components = Components(far, "far")

    def denoising(window, **options):
        with sf.load(far) as pipe:
            asked = dict(frames=41, window=window, context_frames=1, **options)
            return memory_need(components, pipe.settings("red", 1, **asked)).denoising

    assert denoising(2) == denoising(3) == denoising(9)
    assert denoising(3, denoiser="score") < denoising(9, denoiser="score")


def test_given_frames_are_shown_as_the_autoencoder_returns_them(filmed):
    """Without the training noise that the flow read them with, so nothing has to be removed."""
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8))
    with sf.load(filmed) as pipe:
        result = pipe.generate("red", seed=3, frames=9, image=picture, **PLAIN)
        pixels = mx.array(np.asarray(picture, np.float32) / 127.5 - 1)[None]
        clean = pipe.vae.encode(pixels)
        back = np.array(pipe.vae.decode(clean))[0]
    assert mx.array_equal(result.denoised[:, 0], clean)
    assert not mx.allclose(result.latents[:, 0], clean, atol=1e-2)
    shown = result.clips[0][0].astype(float)
    assert np.abs(shown - np.clip(127.5 * (back + 1), 0, 255)).max() < 0.51
