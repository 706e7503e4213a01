"""Malicious clips: no other file is opened, no memory filled, and damage is an error of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_starflow.errors import ImageError, StarflowError, UsageError
from mlx_starflow.pictures import clips
from mlx_starflow.pictures.clips import DEMUXERS, clip_metadata, read_clip, save_clip

ROOT = Path(__file__).parents[2]
ABOUT = {"generator": "mlx-starflow", "seed": 3}


@pytest.fixture
def av():
    return pytest.importorskip("av")


def clip(frames: int = 4, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, side, side, 3), np.uint8)


def playlists(secret: Path) -> dict[str, str]:
    """Files that name another one, for the demuxers that would open it."""
    return {
        "concat": f"ffconcat version 1.0\nfile {secret.name}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret.name}\n#EXT-X-ENDLIST\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "imf": '<?xml version="1.0"?><CompositionPlaylist></CompositionPlaylist>',
    }


@pytest.mark.parametrize("suffix", DEMUXERS)
@pytest.mark.parametrize("kind", ["concat", "hls", "sdp", "imf"])
def test_a_clip_opens_no_other_file(kind, suffix, av, tmp_path):
    secret = save_clip(clip(), tmp_path / "secret.mp4", 8, ABOUT)
    path = tmp_path / f"a{suffix}"
    path.write_text(playlists(secret)[kind])
    with pytest.raises(ImageError, match=f"a{suffix} cannot be read as a clip"):
        read_clip(path)
    if suffix == ".mp4":
        with pytest.raises(ImageError, match="cannot be read as a clip"):
            clip_metadata(path)


@pytest.mark.parametrize("name", ["a.m3u8", "a.ffconcat", "a.txt", "a.jpg", "http:", "concat:a"])
def test_other_names_are_no_clips(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"#EXTM3U\n")
    with pytest.raises(UsageError, match="clips are read from"):
        read_clip(Path(name))


def test_a_pipe_is_no_clip(av, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    os.mkfifo(path)
    for read in (read_clip, clip_metadata):
        with pytest.raises(StarflowError):
            read(path)
    monkeypatch.setattr(Path, "is_file", lambda self: True)  # it became one a moment later
    for read in (read_clip, clip_metadata):
        with pytest.raises(ImageError, match="named pipe"):
            read(path)


# Amounts


def written(path: Path, frames: int, side: int) -> Path:
    """A small file with many large frames."""
    if path.suffix == ".mp4":
        av = pytest.importorskip("av")
        with av.open(str(path), "w", format="mp4") as file:
            stream = file.add_stream("libx264", rate=8)
            stream.height = stream.width = side
            stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast", "g": "250"}
            picture = av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), "rgb24")
            picture = picture.reformat(format="yuv420p")
            for number in range(frames):
                picture.pts = number
                file.mux(stream.encode(picture))
            file.mux(stream.encode())
        return path
    pictures = [Image.new("P", (side, side), i % 2) for i in range(frames)]
    if path.suffix == ".webp":
        pictures = [p.convert("RGB") for p in pictures]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    return path


READ = """
import resource, sys
from pathlib import Path
from mlx_starflow.errors import ImageError
from mlx_starflow.pictures.clips import read_clip
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_clip(Path(sys.argv[1]))
except ImageError as error:
    print(error)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_a_small_file_does_not_fill_the_memory(name, tmp_path):
    path = written(tmp_path / name, 30, 3000)
    assert path.stat().st_size < 300_000
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True,
                          cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    said, grown = done.stdout.splitlines()
    assert "30 frames of 3000x3000 pixels" in said and "250 million" in said
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit < 250 << 20  # all frames take 810 MB


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.mp4", "folder"])
def test_pixels_are_counted_in_every_form(name, tmp_path, monkeypatch):
    if name.endswith(".mp4"):
        pytest.importorskip("av")
    path = save_clip(clip(), tmp_path / name, 8, ABOUT)
    monkeypatch.setattr(clips, "MAX_CLIP_PIXELS", 4 * 32 * 32)
    assert len(read_clip(path)) == 4
    monkeypatch.setattr(clips, "MAX_CLIP_PIXELS", 4 * 32 * 32 - 1)
    assert len(read_clip(path, most=3)) == 3
    with pytest.raises(ImageError, match="pixels"):
        read_clip(path)
    monkeypatch.setattr(clips, "MAX_PIXELS", 32 * 32 - 1)
    with pytest.raises(ImageError, match="in a frame" if name != "folder" else "pixels"):
        read_clip(path, most=1)


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_a_header_that_tells_fewer_frames(name, tmp_path, monkeypatch):
    """The pixels are counted again while the frames are read."""
    if name.endswith(".mp4"):
        pytest.importorskip("av")
    path = save_clip(clip(), tmp_path / name, 8, ABOUT)
    monkeypatch.setattr(clips._Amount, "check", lambda *_: None)
    monkeypatch.setattr(clips, "MAX_CLIP_PIXELS", 3 * 32 * 32)
    with pytest.raises(ImageError, match="more than"):
        read_clip(path)


# Damage


def test_damaged_films_are_refused(av, tmp_path):
    data = save_clip(clip(), tmp_path / "a.mp4", 8, ABOUT).read_bytes()
    at = data.index(b"{" + b'"generator')
    cases = {
        "metadata": data[:at] + b"\xff\xfe" + data[at + 2 :],
        "cut": data[: len(data) // 2],
        "empty": b"",
        "noise": bytes(1000),
        "header": data[:40],
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        with pytest.raises(ImageError, match=f"{name}.mp4"):
            clip_metadata(path)
        if name != "metadata":
            with pytest.raises(ImageError, match=f"{name}.mp4"):
                read_clip(path)


def test_a_film_without_frames(av, tmp_path):
    path = save_clip(clip(), tmp_path / "a.mp4", 8, ABOUT)
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[at:end] = bytes(end - at)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.mp4 (holds no frames|cannot be read)"):
        read_clip(path)
