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
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from ..errors import ImageError, UsageError
from ..files.json import JSONError, parse_json
from .animation import FORMATS, save_animation
from .arrays import free_path, read_picture
from .metadata import MAX_SETTINGS, PNG_KEY, read_metadata, save_picture
from .opening import opened

MP4 = ".mp4"
MAX_FRAMES = 4096  # most frames of a clip that is read
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
    UsageError, ImageError."""
    if path.is_dir():
        files = sorted(
            f for f in path.iterdir() if re.fullmatch(r"(?i)\.(png|jpe?g|webp)", f.suffix)
        )
        if not files:
            raise ImageError(f"{path} holds no pictures to read as a clip.")
        return [read_picture(file) for file in files[:most]]
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file or folder.")
    if path.suffix.lower() in FORMATS:
        return list(_animated(path, most))
    return list(_filmed(path, most))


def _animated(path: Path, most: int) -> Iterator[Image.Image]:
    with opened(path) as picture:
        for number, frame in enumerate(ImageSequence.Iterator(picture)):
            if number == most:
                return
            yield frame.convert("RGB")


def _filmed(path: Path, most: int) -> Iterator[Image.Image]:
    av = pyav()
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise ImageError(f"{path} holds no video stream.")
            for number, frame in enumerate(file.decode(video=0)):
                if number == most:
                    return
                yield frame.to_image()
    except av.error.FFmpegError as error:
        raise ImageError(f"{path} cannot be read as a clip ({str(error)[:200]}).") from None


def clip_metadata(path: Path) -> dict[str, Any]:
    """The settings stored in an .mp4, an animation, or the first picture of a folder. Errors:
    UsageError if the file does not exist, ImageError if it holds no settings."""
    if path.is_dir():
        return read_metadata(path / "frame_0000.png")
    if path.suffix.lower() != MP4:
        return read_metadata(path)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file.")
    av = pyav()
    try:
        with av.open(str(path)) as file:
            text = str(file.metadata.get("comment", ""))
    except av.error.FFmpegError as error:
        raise ImageError(f"{path} cannot be read as a clip ({str(error)[:200]}).") from None
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
