"""Bytes and PSNR of other picture formats at each quality, with Pillow's encoders."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

# Format of Pillow, qualities, and options: the slowest settings that are practical for small
# pictures.
FORMATS: dict[str, tuple[str, tuple[int, ...], dict]] = {
    "WebP": ("WEBP", (0, 1, 2, 5, 10, 15, 20, 30, 40), {"method": 6}),
    "AVIF": ("AVIF", (0, 2, 5, 10, 15, 20, 30), {"speed": 2, "subsampling": "4:2:0"}),
    "AVIF 4:4:4": ("AVIF", (0, 2, 5, 10, 15, 20), {"speed": 2, "subsampling": "4:4:4"}),
    "JPEG": ("JPEG", (1, 5, 10, 20, 30, 40, 50), {"optimize": True}),
}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """The PSNR in dB of two 8-bit pictures."""
    error = np.mean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)))
    return float(10 * np.log10(255**2 / max(error, 1e-10)))


def encoded(picture: np.ndarray, form: str, **options) -> tuple[int, float]:
    """Bytes of the file and its PSNR."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format=form, **options)
    return file.tell(), psnr(picture, np.asarray(Image.open(file).convert("RGB")))


def curve(name: str, pictures: np.ndarray) -> list[tuple[float, float]]:
    """(mean bytes, mean PSNR in dB) for every quality of a format of FORMATS."""
    form, qualities, options = FORMATS[name]
    points = []
    for quality in qualities:
        rows = [encoded(p, form, quality=quality, **options) for p in pictures]
        size, quality_found = np.mean(rows, axis=0)
        points.append((float(size), float(quality_found)))
    return points


def png_bytes(pictures: np.ndarray) -> float:
    """Mean bytes of lossless PNG files."""
    return float(np.mean([encoded(p, "PNG", optimize=True)[0] for p in pictures]))


def bytes_at(points: list[tuple[float, float]], quality: float) -> float:
    """Bytes at a PSNR, by linear interpolation in (dB, log bytes); NaN outside the curve."""
    points = sorted(points, key=lambda p: p[1])
    size, found = np.array(points).T
    if not found[0] <= quality <= found[-1]:
        return float("nan")
    return float(np.exp(np.interp(quality, found, np.log(size))))
