"""Clips given to ``encode``, ``decode``, ``vary`` and ``interpolate``: as pictures, with frames."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.editing.inputs import latents_of
from mlx_starflow.generation import noise_file
from mlx_starflow.pictures.clips import clip_metadata, read_clip, save_clip


def pixels(path) -> np.ndarray:
    """The frames of a clip, (M, H, W, 3)."""
    return np.stack([np.asarray(frame.convert("RGB")) for frame in read_clip(path)]).astype(int)


def moving(frames: int, seed: int = 0) -> np.ndarray:
    """A smooth picture that moves to the right, (M, 32, 32, 3) uint8."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    still = np.asarray(Image.fromarray(colours).resize((32, 32), Image.Resampling.BICUBIC))
    return np.stack([np.roll(still, 2 * i, axis=1) for i in range(frames)])


@pytest.fixture(scope="module")
def pipe(filmed):
    with sf.load(filmed) as pipe:
        yield pipe


@pytest.fixture
def ask(run, filmed):  # noqa: F811
    """A command that must succeed, with the model of clips."""

    def call(*arguments):
        done = run(*arguments, "-m", filmed)
        assert done.status == 0, done.err
        return done

    return call


@pytest.fixture
def refused(run, filmed):  # noqa: F811
    def call(*arguments, status=2, model=filmed):
        done = run(*arguments, "-m", model)
        assert done.status == status and done.err.count("\n") == 1, done.err
        return done.err

    return call


def arrays(path):
    return mx.load(str(path))


# encode and decode


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.png", "folder"])
def test_every_kind_of_clip_is_encoded_and_decoded(ask, pipe, name, tmp_path):
    if name.endswith(".mp4"):
        pytest.importorskip("av")
    path = save_clip(moving(9), tmp_path / name, 16)
    made = json.loads(ask("encode", path, "-o", "z.safetensors", "--json").out)
    assert made["round_trip_error"] < 1e-3 and made["frames"] == 9 and made["fps"] == 8
    latents = latents_of(pipe, [read_clip(path)])
    code = arrays("z.safetensors")
    assert mx.array_equal(code["latents"], latents) and code["noise"].shape == (1, 3, 2, 2, 3)
    done = ask("decode", "z.safetensors", "-o", "again")
    expected = np.array(pipe.vae.decode(latents)[0])
    expected = np.round(255 * np.clip((expected + 1) / 2, 0, 1))
    assert done.lines == ["again"] and np.abs(pixels(Path("again")) - expected).max() <= 1
    stored = clip_metadata(tmp_path / "again")
    assert stored["frames"] == 9 and stored["denoise"] is False


def test_guidance_prompt_and_windows_are_undone(ask, pipe):
    """A clip that is longer than the window."""
    path = save_clip(moving(21), Path("a"), 8)
    asked = ("--prompt", "red", "--guidance", 2, "--fps", 4, "--window", 2, "--context", 1)
    made = json.loads(ask("encode", path, *asked, "-o", "z.safetensors", "--json").out)
    assert made["round_trip_error"] < 1e-3
    assert (made["frames"], made["fps"], made["window"], made["context_frames"]) == (21, 4, 2, 1)
    decoded = json.loads(ask("decode", "z.safetensors", "-o", "b", "--json").out)["clips"][0]
    for key in ("frames", "fps", "window", "context_frames", "guidance", "prompt"):
        assert decoded[key] == made[key], key
    x = latents_of(pipe, [read_clip(path)])
    assert mx.allclose(arrays("z.safetensors")["latents"], x)
    expected = np.round(255 * np.clip((np.array(pipe.vae.decode(x)[0]) + 1) / 2, 0, 1))
    assert np.abs(pixels(Path("b")) - expected).max() <= 1
    # Another window gives another noise; so it is not ignored.
    other = json.loads(ask("encode", path, *asked[:6], "-o", "y.safetensors", "--json").out)
    assert (other["fps"], other["window"], other["context_frames"]) == (4, 3, 2)
    assert not mx.allclose(
        arrays("y.safetensors")["noise"], arrays("z.safetensors")["noise"], atol=1e-3
    )


def test_a_clip_of_one_frame_is_a_picture(ask):
    save_clip(moving(3), Path("a"), 8)  # one latent frame
    Image.fromarray(moving(1)[0]).save("a.png")
    one = ask("encode", "a", "--prompt", "red", "-o", "one.safetensors")
    assert "was cut from 3 to 1 frames" in one.err
    ask("encode", "a.png", "--prompt", "red", "-o", "two.safetensors")
    a, b = arrays("one.safetensors"), arrays("two.safetensors")
    assert a["noise"].shape == (1, 2, 2, 3) and mx.array_equal(a["noise"], b["noise"])
    for name in ("one", "two"):
        ask("decode", f"{name}.safetensors", "-o", f"{name}.png")
    assert np.array_equal(np.asarray(Image.open("one.png")), np.asarray(Image.open("two.png")))


def test_frames_are_fitted_as_pictures_are(ask, refused):
    wide = np.repeat(moving(5), 2, axis=2)  # 64 x 32: not a size of the model
    save_clip(wide, Path("a"), 8)
    assert "Use --fit crop or --fit stretch" in refused("encode", "a")
    for fit in ("crop", "stretch"):
        done = ask("encode", "a", "--fit", fit, "-o", f"{fit}.safetensors")
        assert f"was {fit}ed from 64x32".replace("croped", "cropped") in done.err
    a, b = (arrays(f"{fit}.safetensors")["latents"] for fit in ("crop", "stretch"))
    assert a.shape == b.shape and not mx.array_equal(a, b)
    Image.new("RGB", (32, 32)).save("a/frame_0002.png")
    assert "its frames have several sizes" in refused("encode", "a", status=1)


# vary


def test_variations_of_a_clip(ask, pipe):
    save_clip(moving(9), Path("a"), 8)
    made = {}
    for name, strength in (("kept", 0), ("near", 0.2), ("fresh", 1)):
        ask("vary", "a", "--strength", strength, "--prompt", "red", "--seed", 5, "-o", name)
        made[name] = pixels(Path(name))
    apart = [np.abs(made[name] - made["kept"]).mean() for name in ("near", "fresh")]
    assert 0 < apart[0] < apart[1]
    # 0 keeps the clip: its latents with the training noise, denoised; 1 is what video draws.
    x = latents_of(pipe, [read_clip(Path("a"))])
    x = x + 0.5 * mx.random.normal(x.shape[1:], key=mx.random.key(5))
    context = pipe.encode_prompts(["red"], fps=8)
    expected = np.array(pipe.vae.decode(sf.denoise(pipe.flow, x, context))[0])
    expected = np.round(255 * np.clip((expected + 1) / 2, 0, 1))
    assert np.abs(made["kept"] - expected).max() <= 2
    ask("video", "red", "--frames", 9, "--seed", 5, "-o", "drawn")
    assert np.abs(made["fresh"] - pixels(Path("drawn"))).max() <= 2
    stored = clip_metadata(Path("near"))
    assert stored["varied"] == {"source": "a", "strength": 0.2, "fit": "refuse"}
    assert (stored["command"], stored["fps"], stored["frames"]) == ("video", 8, 9)


def test_several_variations_and_a_window(ask, pipe):
    save_clip(moving(21), Path("a"), 8)
    done = ask("vary", "a", "--num-images", 2, "--seed", 3, "--strength", 0, "--window", 2,
               "--context", 1, "-o", "v", "--json")  # fmt: skip
    one, two = json.loads(done.out)["clips"]
    assert [r["path"] for r in (one, two)] == ["v_seed_3", "v_seed_4"]
    assert (one["window"], one["context_frames"]) == (2, 1)
    assert np.abs(pixels(Path("v_seed_3")) - pixels(Path("v_seed_4"))).max() <= 1


@pytest.mark.parametrize("stored", [True, False])
def test_a_variation_is_made_again(ask, run, filmed, stored, monkeypatch):  # noqa: F811
    """From the noise in the file, or, if that is too large, from the clip that was varied."""
    if not stored:
        monkeypatch.setattr(noise_file, "STORED_BYTES", 0)
    save_clip(moving(9), Path("a"), 8)
    ask("vary", "a", "--prompt", "red", "--seed", 5, "--num-images", 2, "-o", "b")
    before = clip_metadata(Path("b_seed_6"))
    assert ("data" in before["noise"]) is stored
    again = run("video", "-C", "b_seed_6", "-o", "c")
    assert again.status == 0 and again.err == "", again.err
    assert np.array_equal(pixels(Path("b_seed_6")), pixels(Path("c")))
    after = clip_metadata(Path("c"))
    for key in ("varied", "noise", "frames", "fps", "guidance", "prompt", "seed"):
        assert after[key] == before[key], key
    # Another seed draws another clip, and not from this noise.
    other = run("video", "-C", "b_seed_6", "--seed", 1, "-o", "d")
    assert other.status == 0 and "varied" not in clip_metadata(Path("d"))
    if not stored:
        save_clip(moving(9, seed=1), Path("e"), 8)
        for frame in Path("e").iterdir():
            frame.replace(Path("a") / frame.name)
        changed = run("video", "-C", "b_seed_6", "-o", "f")
        assert changed.status == 0 and "a has changed, or this device rounds" in changed.err
        for frame in Path("a").iterdir():
            frame.unlink()
        Path("a").rmdir()
        gone = run("video", "-C", "b_seed_6", "-o", "f")
        assert gone.status != 0 and "a: there is no such file" in gone.err


# interpolate


def test_clips_between_two_clips(ask, pipe):
    for name, seed in (("a", 0), ("b", 1)):
        save_clip(moving(9, seed), Path(name), 8)
    done = ask("interpolate", "a", "b", "--frames", 3, "-o", "row", "--animation", "m.gif",
               "--bounce", "--fps", 4, "--json")  # fmt: skip
    assert json.loads(done.out)["paths"] == ["row", "m.gif"]
    row = pixels(Path("row"))
    assert row.shape == (9, 32, 96, 3) and len(read_clip(Path("m.gif"))) == 2 * 27 - 2
    for name, part in (("a", row[:, :, :32]), ("b", row[:, :, 64:])):
        decoded = np.array(pipe.vae.decode(latents_of(pipe, [read_clip(Path(name))]))[0])
        expected = np.round(255 * np.clip((decoded + 1) / 2, 0, 1))
        assert np.abs(part - expected).max() <= 1
    with Image.open("m.gif") as animation:
        assert animation.info["duration"] == 250


def test_clips_between_two_seeds(ask, run):  # noqa: F811
    asked = ("--prompt", "red", "--guidance", 2, "--clip-frames", 15, "--window", 2, "--context", 1)
    ask("interpolate", "--seed", 1, 2, *asked, "--frames", 2, "-o", "row")
    row = pixels(Path("row"))
    assert row.shape == (13, 32, 64, 3)
    for seed in (1, 2):
        ask("video", "red", "--seed", seed, "--frames", 13, "--guidance", 2, "--window", 2,
            "--context", 1, "-o", str(seed))  # fmt: skip
        own = row[:, :, 32 * (seed - 1) : 32 * seed]
        assert np.abs(own - pixels(Path(str(seed)))).max() <= 2
    settings = clip_metadata(Path("row"))
    assert (settings["clip_frames"], settings["fps"], settings["window"]) == (13, 8, 2)
    wrong = run("video", "-C", "row")
    assert wrong.status == 2 and wrong.err.count("\n") == 1
    line = "--prompt red --frames 2 --clip-frames 13 --guidance 2.0 --fps 8 --window 2 --context 1"
    assert f"mlx-starflow interpolate --seed 1 --seed 2 {line}" in wrong.err, wrong.err


def test_pictures_and_clips_of_one_frame(ask):
    """A model of clips blends pictures as before, and stills in clips as pictures."""
    for seed in (0, 1):
        Image.fromarray(moving(1, seed)[0]).save(f"{seed}.png")
        save_clip(moving(1, seed), Path(str(seed)), 8)
    ask("interpolate", "0.png", "1.png", "--frames", 3, "-o", "row.png")
    ask("interpolate", "0", "1", "--frames", 3, "-o", "row")
    whole = np.asarray(Image.open("row.png"))
    assert np.array_equal(pixels(Path("row"))[0], whole) and whole.shape == (32, 96, 3)


# noise of clips in files


def test_noise_of_clips_is_read_from_files(ask, run, refused, pipe):  # noqa: F811
    save_clip(moving(9), Path("a"), 8)
    ask("encode", "a", "--prompt", "red", "-o", "z.safetensors")
    ask("video", "blue", "--noise", "z.safetensors", "--seed", 1, "-o", "b")  # 9 frames, as a
    assert clip_metadata(Path("b"))["frames"] == 9
    drawn = pipe.generate("blue", seed=1, frames=9, noise=arrays("z.safetensors")["noise"])
    assert np.abs(pixels(Path("b")) - drawn.clips[0]).max() <= 1
    again = run("video", "-C", "b", "-o", "c")
    assert again.status == 0 and np.array_equal(pixels(Path("b")), pixels(Path("c")))
    np.save("z.npy", np.array(arrays("z.safetensors")["noise"]))
    ask("decode", "z.npy", "--prompt", "blue", "--guidance", 1.5, "--denoise", "-o", "d")
    assert np.abs(pixels(Path("d")) - drawn.clips[0]).max() <= 1
    assert "this request needs" in refused("generate", "blue", "--noise", "z.safetensors")
    np.save("bad.npy", np.zeros((1, 1, 3, 2, 2, 3), np.float32))
    assert "for clips (B, N, h, w, c)" in refused("decode", "bad.npy", status=1)


# mistakes


def test_mistakes(refused, colours, tmp_path):
    save_clip(moving(9), Path("a"), 8)
    save_clip(moving(13), Path("long"), 8)
    (tmp_path / "empty").mkdir()
    Image.fromarray(moving(1)[0]).save("a.png")
    Path("broken.gif").write_bytes(b"GIF89a")
    for command, message in (
        (("encode", "a.png", "--fps", 8), "--fps: only for clips, but a.png is a picture"),
        (("vary", "a.png", "--window", 3), "--window: only for clips, but a.png is a picture"),
        (("encode", "long", "--window", 2, "--context", 2), "--context is 2"),
        (("vary", "long", "--window", 1), "--context is 1"),
        (("encode", "a", "-o", "a.mp4"), "expected a name ending in .safetensors"),
        (("vary", "a", "-o", "a.jpg"), "clips are written as"),
        (("interpolate", "a", "long"), "a has 9 frames and long 13; cut the longer one"),
        (("interpolate", "a", "a.png"), "cut the longer one"),
        (("interpolate", "a", "a", "--clip-frames", 9), "--clip-frames belongs to --seed"),
        (("interpolate", "a", "a", "-o", "a.jpg"), "clips are written as"),
        (("interpolate", "a", "a", "--fps", 7.5), "--fps is 7.5"),
        (("interpolate", "--seed", 1, 2, "--window", 3), "are for clips; these are pictures"),
    ):
        assert message in refused(*command), command
    for command, message in (
        (("encode", "empty"), "holds no pictures"),
        (("vary", "broken.gif"), "broken.gif"),
    ):
        assert message in refused(*command, status=1)
    for command in (("encode", "a"), ("vary", "a"), ("interpolate", "a", "a"),
                    ("interpolate", "--seed", 1, 2, "--clip-frames", 9)):  # fmt: skip
        said = refused(*command, model=colours)
        assert "makes pictures" in said, said
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".safetensors", ".mp4", ".part")]
