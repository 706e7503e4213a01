"""Read and write clips: .mp4 (H.264, with PyAV), .gif, .webp, animated .png and folders of PNGs.

The settings are stored in the file, as in pictures.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from ..errors import ImageError, ImageUsageError, StarflowError, UsageError
from ..files.json import JSONError, parse_json
from ..files.regular import NotRegular, open_regular
from .animation import FORMATS, save_animation
from .arrays import free_path
from .metadata import MAX_SETTINGS, PNG_KEY, read_metadata, save_picture
from .opening import MAX_PIXELS, is_animated, opened

MP4 = ".mp4"
# FFmpeg's demuxers of the files that are read.
DEMUXERS = {MP4: "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska",
            ".avi": "avi"}  # fmt: skip
MAX_FRAMES = 4096  # most frames of a clip that is read
MAX_CLIP_PIXELS = 250_000_000  # of all frames that are read; they take three bytes each
_CRF, _PRESET = "10", "slow"  # the values of the published program


def check_clip_path(path: Path) -> None:
    """Raise UsageError if a clip cannot be written to a path of this name, or if its format needs
    an extra that is not installed."""
    suffix = path.suffix.lower()
    if suffix == MP4:
        pyav()
    elif suffix and suffix not in FORMATS:
        raise UsageError(
            f"{path}: clips are written as {MP4}, {', '.join(FORMATS)}, or, without a suffix, as a "
            f"folder of PNGs; the name ends in {path.suffix!r}."
        )


def pyav() -> ModuleType:
    """The module of PyAV. Errors: UsageError if the extra is not installed."""
    try:
        import av
    except ImportError:
        raise UsageError(
            ".mp4 files need PyAV: pip install 'mlx-starflow[video]'. Without it, clips can be "
            f"written as {', '.join(FORMATS)} or as a folder of PNGs."
        ) from None
    return av


def save_clip(
    frames: np.ndarray, path: Path, fps: int, metadata: dict[str, Any] | None = None
) -> Path:
    """Write frames (M, H, W, 3) uint8 with their settings; returns the path.

    The suffix determines the format; without one, a folder of PNGs is written. An existing file is
    kept, and a free name is taken. The file appears only when it is complete. Errors: UsageError,
    ImageError.
    """
    check_clip_path(path)
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        pictures = [Image.fromarray(frame) for frame in frames]
        return save_animation(pictures, path, fps, metadata=metadata)
    partial = path.parent / f".{path.stem}-{secrets.token_hex(4)}.part{suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if suffix == MP4:
                _write_mp4(frames, partial, fps, metadata)
            else:
                _write_folder(frames, partial, metadata)
            free = free_path(path)
            os.rename(partial, free)
            return free
        finally:
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            partial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"{path} cannot be written ({reason}); choose another path.") from error


def _write_mp4(frames: np.ndarray, path: Path, fps: int, metadata: dict[str, Any] | None) -> None:
    av = pyav()
    # The settings are stored as the comment of the file, which ffmpeg keeps unchanged.
    with av.open(str(path), "w", format="mp4") as file:
        if metadata is not None:
            file.metadata["comment"] = PNG_KEY + json.dumps(metadata)
        stream = file.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": _CRF, "preset": _PRESET}
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def _write_folder(frames: np.ndarray, path: Path, metadata: dict[str, Any] | None) -> None:
    path.mkdir()
    for number, frame in enumerate(frames):
        own = metadata if number == 0 else None
        save_picture(Image.fromarray(frame), path / f"frame_{number:04d}.png", own)


def read_clip(path: Path, most: int = MAX_FRAMES) -> list[Image.Image]:
    """The frames of a clip file or of a folder of pictures, in order, at most ``most``. Errors:
    UsageError, ImageError; a clip of more than MAX_CLIP_PIXELS in these frames is refused before it
    is decoded."""
    frames: Iterator[Image.Image]
    if path.is_dir():
        files = sorted(
            f for f in path.iterdir() if re.fullmatch(r"(?i)\.(png|jpe?g|webp)", f.suffix)
        )
        if not files:
            raise ImageError(f"{path} holds no pictures to read as a clip.")
        frames = _pictures(files[:most], _Amount(path))
    elif not path.is_file():
        raise UsageError(f"{path}: there is no such file or folder.")
    elif path.suffix.lower() in FORMATS:
        frames = _animated(path, most, _Amount(path))
    else:
        frames = _filmed(path, most, _Amount(path))
    found = list(frames)
    if not found:
        raise ImageError(f"{path} holds no frames.")
    return found


def is_clip(path: Path) -> bool:
    """Whether a path is that of a clip: a folder, a film, or a picture file with several frames.
    Damaged files count as pictures."""
    if path.is_dir() or path.suffix.lower() in DEMUXERS:
        return True
    if path.suffix.lower() not in FORMATS:
        return False
    try:
        with opened(path) as picture:
            return is_animated(picture)
    except ImageError:
        return False


class _Amount:
    """Counts the pixels of a clip's frames and refuses too many."""

    def __init__(self, path: Path) -> None:
        self._path, self._pixels = path, 0

    def check(self, width: int, height: int, frames: int) -> None:
        """Refuse so many frames of a size. Errors: ImageError."""
        if width * height > MAX_PIXELS or width * height * frames > MAX_CLIP_PIXELS:
            raise ImageError(
                f"{self._path} has {frames} frames of {width}x{height} pixels; at most "
                f"{MAX_PIXELS // 1_000_000} million pixels are allowed in a frame and "
                f"{MAX_CLIP_PIXELS // 1_000_000} million in a clip. Scale it down, or shorten it."
            )

    def add(self, width: int, height: int) -> None:
        """Count a frame that is about to be decoded. Errors: ImageError."""
        self.check(width, height, 1)
        self._pixels += width * height
        if self._pixels > MAX_CLIP_PIXELS:
            raise ImageError(
                f"{self._path} has more than {MAX_CLIP_PIXELS // 1_000_000} million pixels in its "
                "frames. Scale it down, or shorten it."
            )


def _pictures(files: list[Path], amount: _Amount) -> Iterator[Image.Image]:
    for file in files:
        with opened(file) as picture:
            amount.add(*picture.size)
            picture.load()
            yield picture


def _animated(path: Path, most: int, amount: _Amount) -> Iterator[Image.Image]:
    with opened(path) as picture:
        amount.check(*picture.size, min(getattr(picture, "n_frames", 1), most))
        for number, frame in enumerate(ImageSequence.Iterator(picture)):
            if number == most:
                return
            amount.add(*frame.size)
            yield frame.convert("RGB")


def _filmed(path: Path, most: int, amount: _Amount) -> Iterator[Image.Image]:
    with _film(path) as file:
        if not file.streams.video:
            raise ImageError(f"{path} holds no video stream.")
        stream = file.streams.video[0]
        decoder = stream.codec_context
        amount.check(decoder.width, decoder.height, min(max(stream.frames, 1), most))
        decoder.options = {"max_pixels": str(MAX_PIXELS)}  # the size may change between frames
        for number, frame in enumerate(file.decode(stream)):
            if number == most:
                return
            amount.add(frame.width, frame.height)
            yield frame.to_image()


@contextmanager
def _film(path: Path) -> Iterator[Any]:
    """A video file opened with PyAV, as a context manager.

    The demuxer follows from the suffix, and reads from a file object: others, such as those of
    playlists, would open other files that the content names. Errors: UsageError; ImageError naming
    the file, for all errors of FFmpeg inside the ``with`` block too.
    """
    demuxer = DEMUXERS.get(path.suffix.lower())
    if demuxer is None:
        raise ImageUsageError(
            f"{path}: clips are read from {', '.join((*DEMUXERS, *FORMATS))} files and folders of "
            f"pictures; the name ends in {path.suffix!r}."
        )
    av = pyav()
    try:
        with (
            open_regular(path) as data,
            av.open(data, format=demuxer, metadata_errors="replace") as file,
        ):
            yield file
    except StarflowError:
        raise
    except NotRegular as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from None
    except Exception as error:  # for broken files, PyAV raises many kinds of errors
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(
            f"{path} cannot be read as a clip ({reason}). Is it complete, and of the kind that its "
            "name says?"
        ) from None


def clip_metadata(path: Path) -> dict[str, Any]:
    """The settings stored in an .mp4, an animation, or the first picture of a folder. Errors:
    UsageError if the file does not exist, ImageError if it holds no settings."""
    if path.is_dir():
        return read_metadata(path / "frame_0000.png")
    if path.suffix.lower() != MP4:
        return read_metadata(path)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file.")
    with _film(path) as file:
        text = str(file.metadata.get("comment", ""))
    if not text.startswith(PNG_KEY):
        raise ImageError(f"{path}: this clip holds no settings of mlx-starflow.")
    try:
        data = parse_json(text[len(PNG_KEY) :], MAX_SETTINGS)
    except JSONError as error:
        raise ImageError(f"{path}: the settings in it are not JSON ({error}).") from None
    if not isinstance(data, dict) or "generator" not in data:
        raise ImageError(f"{path}: this is JSON, but not settings of mlx-starflow.")
    return data


def covering(picture: Image.Image, width: int, height: int) -> Image.Image:
    """A picture resized (bilinear, antialiased) to cover ``width`` x ``height`` pixels and cropped
    around the centre to this size."""
    picture = picture.convert("RGB")
    scale = max(width / picture.width, height / picture.height)
    # max: rounding must not make the picture smaller than the target.
    wide = max(width, round(picture.width * scale))
    high = max(height, round(picture.height * scale))
    if (wide, high) != picture.size:
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - width) // 2, (high - height) // 2
    return picture.crop((left, top, left + width, top + height))


def to_frames(x: np.ndarray) -> np.ndarray:
    """Pixels (..., C), approximately in [-1, 1], -> uint8 (..., 3), clipped and rounded. A single
    channel is repeated three times."""
    pixels = np.round(255 * np.clip((x + 1) / 2, 0, 1)).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
