"""Files of clips: frames, settings, rates; pictures that are made to cover a frame."""

from fractions import Fraction

import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image

from mlx_starflow.pictures.clips import (
    clip_metadata,
    covering,
    read_clip,
    save_clip,
)


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
