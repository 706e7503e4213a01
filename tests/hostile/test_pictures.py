"""Malicious pictures: no program is started, no memory filled, no file lost or half-written."""

from __future__ import annotations

import os
import resource
import stat
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_starflow.errors import ImageError, StarflowError
from mlx_starflow.pictures.animation import save_animation
from mlx_starflow.pictures.arrays import free_path, read_picture, write_whole
from mlx_starflow.pictures.metadata import read_metadata, save_picture
from mlx_starflow.pictures.opening import MAX_PIXELS, opened
from mlx_starflow.pictures.read import on_white, open_mask, open_picture, pictures_in

ROOT = Path(__file__).parents[2]
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 16 16
%%EndComments
showpage
%%EOF
"""
READERS = {
    "open_picture": open_picture,
    "read_picture": read_picture,
    "read_metadata": read_metadata,
    "open_mask": lambda path: open_mask(path, (16, 16)),
}


@pytest.fixture
def ghostscript(tmp_path, monkeypatch) -> Path:
    """A program named gs that leaves a mark when it is started."""
    canary, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {canary}\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return canary


@pytest.mark.parametrize("reader", READERS)
def test_postscript_named_png_starts_nothing(reader, tmp_path, ghostscript):
    path = tmp_path / "fox.png"
    path.write_bytes(EPS)
    with pytest.raises(ImageError, match=r"fox\.png"):
        READERS[reader](path)
    assert not ghostscript.exists()


def test_nothing_else_opens_pictures():
    """One list of formats: Image.open stands in one place."""
    sources = [*(ROOT / "mlx_starflow").rglob("*.py"), *(ROOT / "convert").rglob("*.py")]
    found = [p.name for p in sources if "Image.open(" in p.read_text(encoding="utf-8")]
    assert found == ["opening.py"]


def bomb(path: Path, width: int, height: int) -> Path:
    """A grey PNG of that size whose pixels are nearly all zero: small on disk."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    return bomb(tmp_path_factory.mktemp("large") / "a.png", 13_000, 13_000)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("reader", READERS)
def test_too_many_pixels_are_refused_before_decoding(reader, large):
    path = large
    assert path.stat().st_size < 1e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="at most 50 million"):
        READERS[reader](path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_many_more_are_refused_too(tmp_path):
    path = bomb(tmp_path / "a.png", 100, 100)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(ImageError, match="too many pixels"):
        open_picture(path)


@pytest.mark.parametrize("reader", READERS)
def test_pipes_and_devices_do_not_hang(reader, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    began = time.monotonic()
    for name in ("a.png", "b.png"):
        with pytest.raises(ImageError, match="not a file"):
            READERS[reader](tmp_path / name)
    os.mkfifo(tmp_path / "c.json")
    with pytest.raises(ImageError, match="named pipe"):
        read_metadata(tmp_path / "c.json")
    Image.new("L", (4, 4)).save(tmp_path / "d.png")
    assert pictures_in([tmp_path]) == [tmp_path / "d.png"]
    assert time.monotonic() - began < 2


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_garbage_in_exif_is_no_crash(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 200)
    for reader in READERS.values():
        try:
            reader(path)
        except StarflowError as error:
            assert str(path) in str(error)


def test_laying_on_white_is_what_pillow_does_at_once():
    pixels = np.random.default_rng(0).integers(0, 256, (700, 9, 4), np.uint8)
    image = Image.fromarray(pixels)
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert np.array_equal(np.asarray(on_white(image)), np.asarray(whole))


FULL = """
import resource, signal, sys
import numpy as np
from PIL import Image
from pathlib import Path
from mlx_starflow.errors import ImageError
from mlx_starflow.pictures.metadata import save_picture
from mlx_starflow.pictures.animation import save_animation
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for path in map(Path, sys.argv[1:]):
    try:
        if path.suffix == ".gif":
            save_animation([noise, noise.rotate(90)], path)
        else:
            save_picture(noise, path)
    except ImageError as error:
        print("refused", path.name, error)
"""


def test_a_disk_without_room_leaves_no_picture(tmp_path):
    names = ["a.jpg", "a.png", "a.webp", "a.gif"]
    paths = [str(tmp_path / name) for name in names]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *paths], capture_output=True, text=True, cwd=ROOT
    )
    refused = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("refused")]
    assert refused == names, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_nowhere_is_not_waited_for(tmp_path):
    path = tmp_path / "a.png"
    path.symlink_to(tmp_path / "nowhere" / "b.png")
    assert free_path(path) == tmp_path / "a_1.png"
    written = write_whole(path, lambda file: file.write(b"x"), overwrite=False)
    assert written == tmp_path / "a_1.png" and written.read_bytes() == b"x"
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    (tmp_path / "b.gif").symlink_to(tmp_path / "nowhere.gif")
    assert save_animation(frames, tmp_path / "b.gif") == tmp_path / "b_1.gif"
    assert save_picture(frames[0], path, overwrite=False) == tmp_path / "a_2.png"
    assert not list(tmp_path.glob(".*")) and path.is_symlink()


def test_a_picture_at_the_limit_opens(tmp_path):
    path = bomb(tmp_path / "a.png", 5000, MAX_PIXELS // 5000)
    with opened(path) as picture:
        assert picture.size == (5000, MAX_PIXELS // 5000)
