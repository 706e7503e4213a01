"""Clips from prompt to file: the pipeline, its events, the command, its files and replay."""

import io
import json
import types
from fractions import Fraction
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from bundles import clips_bundle
from clip_arrays import assert_met, channels_last
from command import run  # noqa: F401
from conftest import case_dir, case_tensors
from PIL import Image
from teaching import adapter

import mlx_starflow as sf
from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions
from mlx_starflow import pipeline
from mlx_starflow.cli import console as console_module
from mlx_starflow.errors import UsageError
from mlx_starflow.events import BlockProgress, Finished, FramesDecoded, Preview
from mlx_starflow.hub.locate import EMBEDDED
from mlx_starflow.pictures.clips import (
    clip_metadata,
    covering,
    read_clip,
    save_clip,
    to_frames,
)
from mlx_starflow.text.tokenizer import PromptTokenizer
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


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.png", "folder"])
def test_files_hold_frames_and_settings(name, tmp_path):
    if name.endswith(".mp4"):
        pytest.importorskip("av")
    ramp = np.linspace(40, 200, 32 * 48 * 3).reshape(1, 32, 48, 3)
    clip = np.concatenate([np.roll(ramp, 4 * i, axis=2) for i in range(5)]).astype(np.uint8)
    settings = {"generator": "mlx-starflow", "prompt": 'a fox, "really"', "seed": 3}
    path = save_clip(clip, tmp_path / name, 8, settings)
    assert path == tmp_path / name and clip_metadata(path) == settings
    frames = np.stack([np.asarray(f.convert("RGB"), np.float32) for f in read_clip(path)])
    assert frames.shape == clip.shape
    # The formats are lossy, but for PNG.
    lossy = 0 if name in ("folder", "a.png") else 12
    assert np.abs(frames - clip).mean() <= lossy
    assert len(read_clip(path, most=2)) == 2
    other = save_clip(clip, tmp_path / name, 8, settings)  # never over a file
    assert other != path and path.exists() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("fps", [8, 16])
def test_an_mp4_is_h264_at_the_rate_of_the_clip(fps, tmp_path):
    av = pytest.importorskip("av")
    path = save_clip(np.zeros((9, 32, 48, 3), np.uint8), tmp_path / "a.mp4", fps)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == fps and stream.frames == 9
        assert stream.duration * stream.time_base == Fraction(9, fps)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_frames_of_animations_last_as_long_as_the_rate_says(name, tmp_path):
    ramp = np.arange(9 * 32 * 32 * 3, dtype=np.int64).reshape(9, 32, 32, 3)
    for fps, milliseconds in ((8, 125), (10, 100), (16, 62.5)):
        path = save_clip((ramp * 7 % 251).astype(np.uint8), tmp_path / name, fps)
        with Image.open(path) as picture:
            shown = []
            for frame in range(picture.n_frames):
                picture.seek(frame)
                picture.load()
                shown.append(picture.info["duration"])
        assert len(shown) == 9
        # GIF counts in hundredths of a second, the others in thousandths.
        step = 10 if name == "a.gif" else 1
        assert all(abs(d - milliseconds) <= step / 2 for d in shown), (fps, shown)


def test_a_picture_covers_its_frame():
    """Every size is covered, whatever the rounding of the other side: no black line."""
    for width in range(20, 120, 7):
        for height in range(20, 120, 9):
            picture = Image.new("RGB", (width, height), "white")
            assert np.asarray(covering(picture, 48, 32)).min() == 255
    wide = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 3, axis=2))
    wide = wide.resize((64, 32), Image.Resampling.NEAREST)
    assert np.asarray(covering(wide, 32, 32))[:, :, 0].tolist()[0] == list(range(16, 48))


def test_command(run, filmed, tmp_path):  # noqa: F811
    film = ("video", "red", "-m", filmed, "--frames", 9, "--seed", 3)
    done = run(*film, "-o", tmp_path / "a.webp", "--preview-frames", tmp_path / "p", "--json")
    assert done.status == 0, done.err
    (record,) = json.loads(done.out)["clips"]
    assert record["command"] == "video" and record["frames"] == 9 and record["seed"] == 3
    assert len(list((tmp_path / "p").iterdir())) == 9
    with sf.load(filmed) as pipe:
        clip = pipe.generate("red", seed=3, frames=9).clips[0]
    shown = np.asarray(Image.open(tmp_path / "p" / "seed_3_frame_0004.png"))
    assert np.array_equal(shown, clip[4])
    # Again from what is in the file, to the bit; and longer, with what is asked besides.
    again = run("video", "-C", tmp_path / "a.webp", "-o", tmp_path / "b")
    assert again.status == 0, again.err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b" / "frame_0004.png")), clip[4])
    longer = run("video", "-C", tmp_path / "a.webp", "--seconds", 2, "-o", tmp_path / "c.gif")
    assert longer.status == 0 and clip_metadata(tmp_path / "c.gif")["frames"] == 17


def test_the_aspect_ratio_on_the_command_line(run, filmed):  # noqa: F811
    film = ("video", "red", "-m", filmed, "--frames", 5, "--seed", 3)
    sizes = {}
    for ratio in ("1:1", "16:9", "9:16"):
        done = run(*film, "--aspect-ratio", ratio, "-o", f"{ratio.replace(':', '-')}.png", "--json")
        assert done.status == 0, done.err
        (record,) = json.loads(done.out)["clips"]
        assert record["aspect_ratio"] == ratio
        sizes[ratio] = read_clip(Path(record["path"]))[0].size
        assert sizes[ratio] == (record["width"], record["height"])
    assert sizes == {"1:1": (32, 32), "16:9": (48, 32), "9:16": (32, 48)}


def test_the_word_of_continued_clips_is_put_before_the_caption(run, narrated, monkeypatch):  # noqa: F811
    texts, encode = [], PromptTokenizer.encode

    def read(self, text, length):
        texts.append(text)
        return encode(self, text, length)

    monkeypatch.setattr(PromptTokenizer, "encode", read)
    film = ("video", "a fox", "-m", narrated, "--frames", 5, "--seed", 3)
    for flags, word in (([], ""), (["--extend-word"], "(extend) ")):
        texts.clear()
        done = run(*film, *flags, "-o", f"{len(flags)}.webp")
        assert done.status == 0, done.err
        captions = {f"Noise Level 500:\nA video with 8 fps:\n{word}a fox\n",
                    "Noise Level 500:\nA video with 8 fps:\n\n"}  # fmt: skip
        assert set(texts) == captions
    assert clip_metadata(Path("1.webp"))["extend"] is True


def test_an_adapter_changes_the_clip_and_is_recorded(run, filmed, colours, tmp_path):  # noqa: F811
    style = adapter(filmed, tmp_path / "style")
    command = ("video", "red", "-m", filmed, "--seed", 3, "--frames", 5)
    plain = run(*command, "-o", "plain.webp")
    made = run(*command, "--lora", style, 0.5, "-o", "styled.webp")
    assert plain.status == made.status == 0, made.err
    stored = clip_metadata(tmp_path / "styled.webp")
    assert [(a["path"], a["scale"]) for a in stored["adapters"]] == [(str(style), 0.5)]
    clips = [read_clip(tmp_path / name) for name in ("plain.webp", "styled.webp")]
    assert not np.array_equal(np.stack(clips[0]), np.stack(clips[1]))
    again = run("video", "-C", "styled.webp", "-o", "again.webp")
    assert again.status == 0 and again.err == "", again.err
    assert np.array_equal(np.stack(clips[1]), np.stack(read_clip(tmp_path / "again.webp")))
    foreign = adapter(colours, tmp_path / "foreign")
    refused = run(*command, "--adapter-path", foreign)
    assert refused.status == 1 and "was made for the model 'colours'" in refused.err


def test_seeds_drawn_at_random_are_shown(run, filmed):  # noqa: F811
    made = run(
        "video", "red", "-m", filmed, "--frames", 1, "--auto-seeds", 2, "-o", "a.webp", "--json"
    )
    seeds = [str(clip["seed"]) for clip in json.loads(made.out)["clips"]]
    assert made.err == f"Random seeds: {', '.join(seeds)}.\n"


def test_command_with_a_beginning(run, filmed, tmp_path):  # noqa: F811
    Image.new("RGB", (50, 40), "teal").save(tmp_path / "first.png")
    film = ("video", "blue", "-m", filmed, "--frames", 9, "--seed", 3)
    done = run(*film, "--image", tmp_path / "first.png", "-o", tmp_path / "a.gif")
    assert done.status == 0, done.err
    given = clip_metadata(tmp_path / "a.gif")["given"]
    assert given["kind"] == "image" and given["file"].endswith("first.png")
    again = run("video", "-C", tmp_path / "a.gif", "-o", tmp_path / "b.gif")
    assert again.status == 0, again.err
    assert [f.tobytes() for f in read_clip(tmp_path / "a.gif")] == [
        f.tobytes() for f in read_clip(tmp_path / "b.gif")
    ]
    longer = run("video", "red", "-m", filmed, "--video", tmp_path / "a.gif", "--frames", 13,
                 "--context", 1, "-o", tmp_path / "c.gif")  # fmt: skip
    assert longer.status == 0, longer.err
    Image.new("RGB", (50, 40), "red").save(tmp_path / "first.png")
    changed = run("video", "-C", tmp_path / "a.gif", "-o", tmp_path / "d.gif")
    assert changed.status == 1 and "content has changed" in changed.err
    (tmp_path / "first.png").unlink()
    gone = run("video", "-C", tmp_path / "a.gif", "-o", tmp_path / "d.gif")
    assert gone.status == 1 and "no longer exists" in gone.err


def test_scores_by_frame(run, filmed, tmp_path):  # noqa: F811
    run("video", "red", "-m", filmed, "--frames", 9, "--seed", 1, "-o", tmp_path / "a")
    score = ("score", tmp_path / "a", "--clips", "-m", filmed, "--prompt", "red", "--draws", 2)
    done = run(*score, "--json")
    assert done.status == 0, done.err
    (record,) = json.loads(done.out)["images"]
    assert len(record["frames"]) == 3
    assert np.mean(record["frames"]) == pytest.approx(
        record["prompts"][0]["bits_per_dim"], abs=1e-4
    )
    assert "every latent frame" in run(*score).out
    assert run("score", tmp_path / "a", "--clips", "-m", filmed, "--map", "m.png").status == 2


def test_mistakes_on_the_command_line(run, filmed, colours, tmp_path):  # noqa: F811
    film = ("video", "red", "-m", filmed, "--frames", 9, "--seed", 1)
    for more, message in (
        (("-o", tmp_path / "a.avi"), "clips are written as"),
        (("--seconds", 2), "give one of them"),
        (("--image", tmp_path / "none.png"), "no such file"),
        (("--frames", 21, "--window", 3, "--context", 3), "--context is 3"),
        (("--fps", 0), "greater than or equal to 1"),
    ):
        wrong = run(*film, *more)
        assert wrong.status == 2 and message in wrong.err, (more, wrong.err)
    pictures = run("video", "red", "-m", colours, "--frames", 9, "-o", tmp_path / "a.gif")
    assert pictures.status == 2 and "makes pictures" in pictures.err
    assert not list(tmp_path.iterdir())


def test_the_embedded_model_draws_the_motion_of_the_prompt(run, tmp_path):  # noqa: F811
    """A fox, which is orange, goes to the side that the prompt says."""
    held = sum(p.stat().st_size for p in EMBEDDED["clips"].rglob("*") if p.is_file())
    assert held <= 15_000_000
    for side, sign in (("left", -1), ("right", 1)):
        path = tmp_path / f"{side}.webp"
        made = run("video", f"a fox walks to the {side} in snow", "--seed", 0, "-o", path)
        assert made.status == 0, made.err
        frames = [np.asarray(f.convert("RGB")).astype(int) for f in read_clip(path)]
        assert len(frames) == 17 and frames[0].shape == (64, 64, 3)
        places = [np.argwhere((f[..., 0] > 180) & (f[..., 2] < 110))[:, 1] for f in frames]
        assert sign * (places[-1].mean() - places[0].mean()) > 4, side
    shown = run("models", "show", "clips")
    assert shown.status == 0 and "motion" in shown.out


def test_the_model_of_clips_in_the_package_is_the_default(run, filmed, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(EMBEDDED, "clips", filmed)
    made = run("video", "red", "--seed", 1, "--frames", 5, "-o", tmp_path / "a.webp")
    assert made.status == 0 and clip_metadata(tmp_path / "a.webp")["model"] == "clips"
    assert run("video", "-C", tmp_path / "a.webp", "-o", tmp_path / "b.webp").status == 0
    made, again = ([np.asarray(f) for f in read_clip(tmp_path / n)] for n in ("a.webp", "b.webp"))
    assert np.array_equal(made, again)
    monkeypatch.setitem(EMBEDDED, "clips", tmp_path / "none")
    gone = run("video", "red", "--seed", 1, "-o", tmp_path / "c.webp")
    assert gone.status == 2 and "lacks the embedded model 'clips'" in gone.err


def test_clips_and_pictures_are_repeated_by_their_own_commands(run, filmed, tmp_path):  # noqa: F811
    run("video", "red", "-m", filmed, "--frames", 5, "--seed", 1, "-o", tmp_path / "a.webp")
    run("generate", "red", "-m", filmed, "--seed", 1, "-o", tmp_path / "b.png")
    wrong = run("generate", "-C", tmp_path / "a.webp", "-o", tmp_path / "c.png")
    assert wrong.status != 0 and "mlx-starflow video -C" in wrong.err
    wrong = run("video", "-C", tmp_path / "b.png", "-o", tmp_path / "c.gif")
    assert wrong.status != 0 and "mlx-starflow generate" in wrong.err


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
