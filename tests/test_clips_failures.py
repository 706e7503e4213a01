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
from mlx_starflow.exact import denoise as denoising
from mlx_starflow.exact.noise import seeded_noise
from mlx_starflow.pictures.clips import clip_metadata, covering, read_clip
from mlx_starflow.text.templates import prompt_text
from mlx_starflow.text.tokenizer import PromptTokenizer

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


def test_4_every_clip_of_a_batch_begins_with_the_picture(pipe):
    """Each is the clip that is drawn alone with its seed."""
    picture = Image.linear_gradient("L").convert("RGB")
    asked = dict(frames=13, image=picture, sampler="sequential")
    together = pipe.generate("red", seed=5, num_images=3, **asked)
    assert together.settings.seeds == (5, 6, 7) and len(together.clips) == 3
    for i, clip in enumerate(together.clips):
        alone = pipe.generate("red", seed=5 + i, **asked)
        assert mx.array_equal(together.noise[i], alone.noise[0])
        assert mx.allclose(together.latents[i], alone.latents[0], atol=1e-4)
        assert mx.allclose(together.denoised[i], alone.denoised[0], atol=1e-4)
        assert np.abs(clip.astype(int) - alone.clips[0].astype(int)).max() <= 1
    others = together.latents[1:] - together.latents[:1]
    assert mx.abs(others).max(axis=(2, 3, 4)).min().item() > 1e-3  # but no two are the same


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


@pytest.mark.parametrize("level", [None, 0.3])
def test_7_all_pieces_and_samples_have_the_same_prefix(narrated, level, monkeypatch):
    """Whether or not a level is given by hand."""
    texts, contexts = [], []
    encode, score = PromptTokenizer.encode, denoising.score

    def read(self, text, length):
        texts.append(text)
        return encode(self, text, length)

    def of_a_piece(flow, piece, context):
        contexts.append(context)
        return score(flow, piece, context)

    monkeypatch.setattr(PromptTokenizer, "encode", read)
    monkeypatch.setattr(denoising, "score", of_a_piece)
    asked = dict(seed=1, num_images=2, frames=13, denoiser="score", noise_std=level)
    with sf.load(narrated) as pipe:  # 4 latent frames in a window of 3: two pieces
        pipe.generate(["a fox", "a boat"], sampler="sequential", **asked)
        expected = pipe.encode_prompts(["a fox", "a fox", "a boat", "a boat"], fps=8)
    assert len(contexts) == 2 and all(mx.array_equal(own, expected) for own in contexts)
    prefix = "Noise Level 500:\nA video with 8 fps:\n"
    assert {text.removeprefix(prefix) for text in texts} == {"a fox\n", "a boat\n", "\n"}


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


def test_8_captions_are_no_file_names(run, narrated, tmp_path):  # noqa: F811
    """Clips are named by the output, the number of the caption and the seed."""
    (tmp_path / "captions.txt").write_text("a/b\n../c\n/d\n")
    film = ("video", "--prompt-file", "captions.txt", "-m", narrated, "--frames", 5, "--seed", 1)
    done = run(*film, "--sampler", "sequential", "-o", "clips/a.webp")
    assert done.status == 0, done.err
    made = [f"a_prompt_{number}_seed_1.webp" for number in (1, 2, 3)]
    assert done.lines == [f"clips/{name}" for name in made]
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["captions.txt", "clips", *(f"clips/{name}" for name in made)]
    captions = [clip_metadata(tmp_path / "clips" / name)["prompt"] for name in made]
    assert captions == ["a/b", "../c", "/d"]


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_9_it_runs_here_and_noise_is_not_rounded(filmed, dtype):
    """No accelerator, no launcher; and the noise arrives in float32, whatever the weights are."""
    noise = np.random.default_rng(0).normal(size=(3, 2, 2, 3)).astype(np.float32)
    asked = dict(seed=1, frames=9, sampler="sequential", guidance=0)
    with sf.load(filmed, dtype=dtype) as pipe:
        result = pipe.generate("red", noise=noise, **asked)
        assert np.array_equal(np.array(result.noise[0]), noise)
        rounded = mx.array(noise).astype(mx.bfloat16).astype(mx.float32)
        other = pipe.generate("red", noise=rounded, **asked)
        seeded = pipe.generate("red", **asked)
    assert mx.array_equal(seeded.noise, seeded_noise(noise.shape, [1]))
    # Rounded noise gives another clip, so it was not rounded on the way in.
    assert not mx.array_equal(result.latents, other.latents)
