"""Where the published program for clips fails (its nine ways), and what happens here instead."""

import dataclasses
import json

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from families import FAMILIES, example_clip, random_flow
from PIL import Image

import mlx_starflow as sf
from mlx_starflow import denoise, invert, log_prob
from mlx_starflow.config import TextConfig
from mlx_starflow.errors import UsageError
from mlx_starflow.pictures.clips import covering, read_clip
from mlx_starflow.text.templates import prompt_text

CLIPS = FAMILIES["clips"]


@pytest.fixture(scope="module")
def pipe(filmed):
    with sf.load(filmed) as pipe:
        yield pipe


def test_1_noise_is_removed_unless_told_otherwise(pipe):
    clean = pipe.generate("red", seed=1, frames=9)
    assert clean.metadata["denoise"] and clean.metadata["denoiser"] == "learned"
    assert mx.abs(clean.denoised - clean.latents).max().item() > 1e-3
    noisy = pipe.generate("red", seed=1, frames=9, denoise=False)
    assert mx.array_equal(noisy.denoised, noisy.latents)


def test_2_windows_end_and_every_sampler_goes_beyond_them():
    flow, (z, context) = random_flow(CLIPS), example_clip(CLIPS, frames=7)
    for options in (dict(context_frames=3), dict(context_frames=4), dict(context_frames=None)):
        with pytest.raises(UsageError, match="context_frames is"):
            invert(flow, z, context, window=3, **options)
    found = [
        invert(flow, z, context, window=3, context_frames=2, sampler=sampler, **more)
        for sampler, more in (
            ("sequential", {}),
            ("sliding", {}),
            ("jacobi", dict(tolerance=1e-11, max_sweeps=100)),
        )
    ]
    assert mx.allclose(found[0], found[1], atol=1e-3)
    assert mx.allclose(found[0], found[2], atol=1e-3)


@pytest.mark.parametrize("overlap", [0, 1, 2, 3, 5])
def test_3_denoising_in_pieces_ends(overlap):
    config = dataclasses.replace(CLIPS, denoiser_window=overlap)
    flow, (x, context) = random_flow(config), example_clip(config, frames=4)
    whole = denoise(flow, x, context)  # also where the clip is no longer than the overlap
    assert whole.shape == x.shape and mx.isfinite(whole).all()
    if overlap >= 3:
        with pytest.raises(UsageError, match="nothing would be denoised"):
            denoise(flow, x, context, window=3)
    else:
        assert denoise(flow, x, context, window=3).shape == x.shape


def test_3_no_sample_of_a_batch_is_lost(pipe):
    result = pipe.generate("red", seed=1, num_images=3, frames=13, context_frames=1)
    assert len(result.clips) == 3 and result.denoised.shape[0] == 3


@pytest.mark.parametrize("guidance", [0.0, 2.0])
@pytest.mark.parametrize("kind", ["text in every block", "identity block", "both, one row"])
def test_4_frames_are_given_to_any_model(kind, guidance):
    first, _, deep = CLIPS.blocks
    shallow = dataclasses.replace(first, local=False, conditioned="text" in kind or "both" in kind)
    nothing = dataclasses.replace(first, layers=0)
    blocks = {
        "text in every block": (shallow, dataclasses.replace(shallow, flip=False), deep),
        "identity block": (first, nothing, deep),
        "both, one row": (shallow, nothing, deep),
    }[kind]
    config = dataclasses.replace(CLIPS, blocks=blocks)
    flow, batch = random_flow(config), 1 if "one row" in kind else 2
    z, context = example_clip(config, batch=batch, guided=guidance > 0)
    given = 0.5 * z[:, :2]
    for sampler in ("sequential", "sliding", "jacobi"):
        options = dict(guidance=guidance, sampler=sampler)
        if sampler == "jacobi":
            options |= dict(block_size=4, tolerance=1e-11, max_sweeps=100)
        x = invert(flow, z, context, given=given, **options)
        assert mx.allclose(x[:, :2], given, atol=1e-4)
    # Local blocks beside one without layers are scored, too.
    assert mx.isfinite(log_prob(flow, z, context[:batch])).all()


def test_4_the_cache_is_as_long_as_the_sequence(monkeypatch):
    from mlx_starflow.flow import block as block_module

    flow, (z, context) = random_flow(CLIPS), example_clip(CLIPS)
    lengths = []

    def counted(capacity, *_):
        lengths.append(capacity)
        return block_module.KVCache(capacity)

    monkeypatch.setattr(block_module, "make_cache", counted)
    invert(flow, z, context, given=z[:, :1], sampler="sequential")
    deep = CLIPS.text_length + 3 * 12  # frames of 3 x 4 tokens
    assert set(lengths) == {deep, 12}


def test_5_a_picture_leaves_no_black_line():
    for width in range(40, 200, 3):
        picture = Image.new("RGB", (width, 97), "white")
        assert np.asarray(covering(picture, 80, 48)).min() == 255


def test_6_clips_of_other_models_are_refused_with_a_sentence():
    z, context = example_clip(CLIPS)
    first, second, deep = CLIPS.blocks
    one_line = dict(position="sequence", channels=10, project_text=False)
    for changes, message in (
        (dict(blocks=(first, dataclasses.replace(deep, **one_line))), "Gemma-shaped"),
        (dict(blocks=(dataclasses.replace(second, position="table"), deep)), "learned table"),
        (dict(text_channels=0, text_length=0, denoiser=None), "no rotary axis for time"),
    ):
        flow = random_flow(dataclasses.replace(CLIPS, **changes))
        for call in (lambda f: f(z, context), lambda f: invert(f, z, context)):
            with pytest.raises(UsageError, match=message):
                call(flow)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_6_jacobi_without_a_first_token(guidance):
    config = dataclasses.replace(CLIPS, sos=False)
    flow, (z, context) = random_flow(config), example_clip(config, guided=guidance > 0)
    options = dict(guidance=guidance, window=2, context_frames=1)
    exact = invert(flow, z, context, sampler="sequential", **options)
    more = dict(block_size=3, tolerance=1e-12, max_sweeps=200)
    assert mx.allclose(invert(flow, z, context, sampler="jacobi", **more, **options), exact,
                       atol=1e-3)  # fmt: skip


def test_7_the_noise_level_of_the_prompt_is_the_models(pipe, run, filmed):  # noqa: F811
    text = TextConfig("t5", 8, 4, fps=True, noise_level=0.5, aspect_ratio=True)
    assert prompt_text("CAP", text, "16:9", 16) == (
        "Noise Level 500:\nA video with 16 fps:\nCAP\n\n in a 16:9 aspect ratio.\n"
    )
    assert prompt_text("CAP", text, "16:9").startswith("Noise Level 500:\nAn image:\nCAP")
    plain = dataclasses.replace(text, noise_level=None)
    assert "Noise Level" not in prompt_text("CAP", plain, "16:9", 16)
    # A level given by hand is a number, and changes the denoising only.
    wrong = run("video", "red", "-m", filmed, "--frames", 9, "--noise-std", "much")
    assert wrong.status == 2 and "--noise-std" in wrong.err
    with pytest.raises(UsageError, match="its own noise level"):
        pipe.generate("red", seed=1, frames=9, noise_std=0.3)
    usual = pipe.generate("red", seed=1, frames=9, denoiser="score", num_images=3)
    other = pipe.generate("red", seed=1, frames=9, denoiser="score", num_images=3, noise_std=0.3)
    assert mx.array_equal(usual.latents, other.latents)
    step = (usual.denoised - usual.latents) / 0.5**2
    assert mx.allclose(step, (other.denoised - other.latents) / 0.3**2, atol=1e-4)


def test_8_every_caption_of_a_file_has_its_own_clip(run, filmed, tmp_path):  # noqa: F811
    (tmp_path / "captions.txt").write_text("red\nblue\nred\n")
    film = ("video", "--prompt-file", "captions.txt", "-m", filmed, "--frames", 5, "--seed", 1)
    done = run(*film, "-o", "clips/a.webp", "--json")
    assert done.status == 0, done.err
    records = json.loads(done.out)["clips"]
    assert [r["prompt"] for r in records] == ["red", "blue", "red"]
    assert len({r["path"] for r in records}) == 3
    assert len({f.name for f in (tmp_path / "clips").iterdir()}) == 3
    first, second, third = ([f.tobytes() for f in read_clip(tmp_path / r["path"])] for r in records)
    assert first == third != second


def test_8_captions_are_no_file_names(filmed, tmp_path):
    """Clips are named by the output, the number of the caption and the seed."""
    from mlx_starflow.cli.outputs import name

    assert name(tmp_path / "a.mp4", 3, 2, True) == tmp_path / "a_prompt_2_seed_3.mp4"


def test_9_it_runs_here_and_noise_is_not_rounded(pipe):
    """No accelerator, no launcher; and the noise arrives in float32."""
    noise = np.random.default_rng(0).normal(size=(3, 2, 2, 3)).astype(np.float32)
    result = pipe.generate("red", seed=1, frames=9, noise=noise, sampler="sequential")
    assert np.array_equal(np.array(result.noise[0]), noise)
    rounded = mx.array(noise).astype(mx.bfloat16).astype(mx.float32)
    other = pipe.generate("red", seed=1, frames=9, noise=rounded, sampler="sequential")
    assert not mx.array_equal(result.latents, other.latents)
