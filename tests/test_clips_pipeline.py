"""Clips from prompt to pixels: the pipeline and its events."""

import io
import json
import types

import mlx.core as mx
import numpy as np
import pytest
from bundles import clips_bundle
from clip_arrays import assert_met, channels_last
from command import run  # noqa: F401
from conftest import case_dir, case_tensors
from PIL import Image

import mlx_starflow as sf
from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions
from mlx_starflow import pipeline
from mlx_starflow.cli import console as console_module
from mlx_starflow.errors import UsageError
from mlx_starflow.events import BlockProgress, Finished, FramesDecoded, Preview
from mlx_starflow.pictures.clips import (
    to_frames,
)
from mlx_starflow.vae.wan import WanDecoder


@pytest.fixture(scope="module")
def pipe(filmed):
    with sf.load(filmed) as pipe:
        yield pipe


def test_a_clip(pipe):
    result = pipe.generate("red", seed=3, frames=9)
    (clip,) = result.clips
    assert clip.shape == (9, 32, 32, 3) and clip.dtype == np.uint8
    assert result.latents.shape == result.noise.shape == (1, 3, 2, 2, 3)
    assert np.array_equal(np.asarray(result.images[0]), clip[0])
    assert result.metadata["frames"] == 9 and result.metadata["fps"] == 8
    assert result.metadata["window"] == 3 and result.metadata["converged"]
    # Frames are those of the autoencoder, clipped and rounded.
    decoded = np.array(pipe.vae.decode(result.denoised)[0])
    assert np.array_equal(clip, to_frames(decoded))


def test_a_picture_of_the_same_model(pipe):
    picture = pipe.generate("red", seed=3)
    assert picture.latents.shape == (1, 2, 2, 3) and picture.clips[0].shape == (1, 32, 32, 3)
    assert "frames" not in picture.metadata and "window" not in picture.metadata
    one = pipe.generate("red", seed=3, frames=1)
    assert np.array_equal(one.clips[0], picture.clips[0])


def test_the_same_seed_gives_the_same_clip_in_a_batch(pipe):
    both = pipe.generate("red", seed=3, num_images=2, frames=9, sampler="sequential")
    alone = pipe.generate("red", seed=4, frames=9, sampler="sequential")
    assert mx.array_equal(both.noise[1:], alone.noise)
    assert mx.abs(both.latents[1:] - alone.latents).max().item() < 1e-4
    given = pipe.generate("red", seed=0, frames=9, sampler="sequential", noise=alone.noise[0])
    assert mx.array_equal(given.latents, alone.latents)


def test_lengths_are_those_that_the_autoencoder_makes(pipe):
    for asked, shown, latent in ((2, 1, 1), (5, 5, 2), (8, 5, 2), (9, 9, 3)):
        result = pipe.generate("red", seed=1, frames=asked)
        assert result.clips[0].shape[0] == shown
        assert (1 if result.latents.ndim == 4 else result.latents.shape[1]) == latent


def test_longer_than_the_window(pipe):
    result = pipe.generate("red", seed=3, frames=21, context_frames=1, sampler="sequential")
    short = pipe.generate("red", seed=3, frames=9, noise=result.noise[:, :3], sampler="sequential")
    assert result.clips[0].shape[0] == 21 and result.metadata["context_frames"] == 1
    assert mx.abs(result.latents[:, :3] - short.latents).max().item() < 1e-4
    # Without --context as many as fit.
    assert pipe.settings("red", seed=3, frames=21).sample.context_frames == 2


@pytest.mark.parametrize("frames", [1, 5])
def test_given_frames_stand_at_the_beginning(pipe, frames):
    own = np.random.default_rng(0).integers(0, 256, (frames, 40, 32, 3), dtype=np.uint8)
    name, given = ("image", own[0]) if frames == 1 else ("video", own)
    result = pipe.generate("red", seed=3, frames=13, **{name: given})
    count = 1 if frames == 1 else 2
    fitted = mx.array(own[None, :, 4:36].astype(np.float32) / 127.5 - 1)
    latents = pipe.vae.encode(fitted) + 0.5 * result.noise[:, :count]
    assert mx.allclose(result.latents[:, :count], latents, atol=1e-5)
    assert result.settings.given_frames == count
    pictures = [Image.fromarray(frame) for frame in own]
    again = pipe.generate(
        "red", seed=3, frames=13, **{name: pictures if count > 1 else pictures[0]}
    )
    assert np.array_equal(result.clips[0], again.clips[0])


def test_events(pipe):
    events = list(pipe.stream("red", seed=3, frames=9, previews=True))
    frames = [e for e in events if isinstance(e, FramesDecoded)]
    assert [(e.first, len(e.frames), e.total) for e in frames] == [(0, 1, 9), (1, 4, 9), (5, 4, 9)]
    assert isinstance(events[-1], Finished)
    whole = np.concatenate([e.frames for e in frames])
    assert np.array_equal(whole, events[-1].result.clips[0])
    for event in events:
        json.dumps(event.to_dict())
        if isinstance(event, Preview):
            assert event.latents.ndim == 5 and pipe.preview(event.latents)[0].size == (32, 32)
            assert pipe.decode(event.latents)[0].size == (32, 32)


@pytest.mark.parametrize("more", [{}, dict(sampler="sequential"), dict(frames=21)])
def test_progress_counts_latent_frames(pipe, more, monkeypatch):
    """Of the deep block, one after another up to the last; of local blocks, which have none."""
    monkeypatch.setattr(pipeline, "EVENTS_PER_SECOND", 1e9)  # no event is left out
    options = {"frames": 9, **more}
    latent = (options["frames"] - 1) // 4 + 1
    steps = [e for e in pipe.stream("red", seed=3, **options) if isinstance(e, BlockProgress)]
    deep = [step.frames_done for step in steps if step.phase == "deep block"]
    assert deep == sorted(deep) and deep[-1] == latent
    if more.get("sampler") == "sequential":
        assert deep == [tokens // 4 for tokens in range(1, 4 * latent + 1)]
    assert {s.frames_total for s in steps if s.phase == "deep block"} == {latent}
    assert {(s.frames_done, s.frames_total) for s in steps if s.phase != "deep block"} == {(0, 0)}


def test_the_console_shows_latent_frames_frames_and_the_time_left(pipe, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock = iter(range(10**6))  # every look at it is a second later
    monkeypatch.setattr(pipeline, "EVENTS_PER_SECOND", 1e9)
    monkeypatch.setattr(
        console_module, "time", types.SimpleNamespace(perf_counter=lambda: next(clock))
    )
    monkeypatch.setenv("COLUMNS", "200")
    screen = Terminal()
    progress = console_module.Progress(console_module.Console(stream=screen), 1)
    for event in pipe.stream("red", seed=3, frames=9, sampler="sequential"):
        progress.follow(event)
    lines = screen.getvalue().split("\r")
    for latent in (1, 2, 3):
        assert any(f"{latent}/3 latent frames" in line for line in lines)
    (last,) = (line for line in lines if "12/12 tokens, 3/3 latent frames" in line)
    assert last.startswith("deep block") and " left  12/12" in last
    assert [n for n in (1, 5, 9) if any(f" left  {n}/9 frames" in line for line in lines)] == [
        1, 5, 9
    ]  # fmt: skip


def test_frames_are_decoded_when_they_are_asked_for(pipe, monkeypatch):
    decoded, upper = [], WanDecoder.upper

    def counted(self, x, past):
        decoded.append(x.shape[1])
        return upper(self, x, past)

    monkeypatch.setattr(WanDecoder, "upper", counted)
    events = pipe.stream("red", seed=3, frames=9)
    seen = [len(decoded) for event in events if isinstance(event, FramesDecoded)]
    assert seen == [1, 2, 3] and decoded == [1, 1, 1]


def test_tiles_of_a_clip(tmp_path):
    """``vae_tiling`` reaches the decoder and is stored; so small a clip is not tiled otherwise."""
    with sf.load(clips_bundle(tmp_path / "large", grid_size=12)) as pipe:
        asked = dict(seed=3, frames=5, sampler="sequential", guidance=0)
        tiled = pipe.generate("red", vae_tiling=True, **asked)
        plain = pipe.generate("red", noise=tiled.noise, **asked)
        assert mx.array_equal(tiled.denoised, plain.denoised)
        expected = [to_frames(np.array(pipe.vae.decode(tiled.denoised, tile=t)[0])) for t in (8, 0)]
    assert np.array_equal(tiled.clips[0], expected[0])
    assert np.array_equal(plain.clips[0], expected[1])
    assert not np.array_equal(*expected)
    assert tiled.metadata["vae_tiling"] and not plain.metadata["vae_tiling"]


def test_what_a_clip_cannot_be_is_refused(pipe, colours):
    picture = Image.new("RGB", (32, 32))
    for options, message in (
        (dict(frames=0), "frames is 0"),
        (dict(frames=9, fps=0), "fps is 0"),
        (dict(fps=8), "are for clips"),
        (dict(image=picture), "are for clips"),
        (dict(frames=1, image=picture), "no frame would be drawn"),
        (dict(frames=5, video=[picture] * 5), "Set frames to 9 or more"),
        (dict(frames=9, video=[picture], image=picture), "give one of them"),
        (dict(frames=9, image=np.zeros((3, 3))), "expected uint8"),
        (dict(frames=21, window=3, context_frames=3), "context_frames is 3"),
        (dict(frames=21, window=1), "context_frames is 1"),
        (dict(window=3), "window is for clips"),
        (dict(frames=9, noise=mx.zeros((2, 2, 3))), "this request needs"),
    ):
        with pytest.raises(UsageError, match=message):
            pipe.generate("red", seed=1, **options)
    with sf.load(colours) as other:
        for options in (dict(frames=9), dict(frames=9, image=picture), dict(window=2)):
            with pytest.raises(UsageError, match="pictures|for clips"):
                other.generate("red", seed=1, **options)


def test_published_numbers(tmp_path):
    """From the prompt to pixels: a clip, a picture, and a clip that begins with a picture."""
    case, tensors = case_dir("video_pipeline_tiny"), case_tensors("video_pipeline_tiny")
    convert_checkpoint(
        ConvertOptions(
            checkpoint=case_dir("video_tiny") / "checkpoint.pth",
            config=case_dir("video_tiny") / "video.yaml",
            output=tmp_path / "model",
            vae=str(case_dir("wan_vae_tiny") / "Wan2.2_VAE.pth"),
            text_encoder=str(case_dir("t5_tiny")),
            verify=True,
        )
    )
    info = json.loads((case / "case.json").read_text())
    (prompt,) = info["prompts"]
    noise = channels_last(tensors["noise"])
    with sf.load(tmp_path / "model") as pipe:
        asked = dict(aspect_ratio=info["aspect_ratio"], guidance=3.5)
        jacobi = dict(sampler="jacobi", block_size=4, tolerance=1e-3)
        for kind, more in (("clip", dict(frames=17, fps=16)), ("still", {})):
            own = noise if kind == "clip" else noise[:, 0]
            text = pipe.encode_prompts([prompt, ""], info["aspect_ratio"], more.get("fps", 0))
            expected = tensors[f"{kind}.text"]
            assert np.abs(np.array(text) - expected).max() <= 1e-5 * np.abs(expected).max()
            result = pipe.generate(prompt, noise=own, sampler="sequential", **asked, **more)
            assert_met(result.latents, tensors[f"{kind}.latent"])
            assert_met(result.denoised, tensors[f"{kind}.denoised"])
            pixels = np.moveaxis(tensors[f"{kind}.pixels"][0], -3, -1)
            shown = result.clips[0] if kind == "clip" else result.clips[0][0]
            assert np.abs(shown - 255 * pixels).max() < 0.501  # rounded
            result = pipe.generate(prompt, noise=own, **asked, **more, **jacobi)
            assert_met(result.latents, tensors[f"{kind}.jacobi.block4.th0.001.latent"])
        picture = channels_last(tensors["i2v.picture"])
        own = channels_last(tensors["i2v.picture_noise"])
        given = pipe.vae.encode(picture) + info["noise_std"] * own
        assert_met(given, tensors["i2v.given"])
        context = pipe.encode_prompts([prompt, ""], info["aspect_ratio"], 16)
        options = dict(guidance=3.5, sampler="sequential")
        x = sf.invert(pipe.flow, noise, context, given=given[:, None], **options)
        assert_met(x, tensors["i2v.latent"])
        x = sf.denoise(pipe.flow, x, context[:1])
        assert_met(x, tensors["i2v.denoised"])
        pixels = np.clip((np.array(pipe.vae.decode(x)) + 1) / 2, 0, 1)
        assert_met(mx.array(pixels), tensors["i2v.pixels"])
