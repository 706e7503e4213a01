"""Measure how much the fine structure of pictures differs from paintings, without a network.

``swd`` is the sliced Wasserstein distance between 7×7 patches on a Laplacian pyramid (Karras et
al., arXiv 1710.10196, section 5), ``gradient_energy`` the mean absolute difference of
neighbouring pixels. As a command, this compares a bundle's samples and its autoencoder's
reconstructions with held-out paintings of the same captions. For comparison it also measures other
paintings, which show how small the distances can be.

python -m recipes.default_model.sharpness [BUNDLE] [--count 96] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from .known import paint_all, read_vocabulary, scenes_and_captions

LEVELS = 4
_PATCH = 7
_PATCHES = 32  # from each picture and level; with fewer patches all distances are larger
_DIRECTIONS = 128
_REPEATS = 6  # random choices of patches and directions; the distances are averaged
SEED = 9_000_000  # of the scenes; not used for training
_KERNEL = np.array([1, 4, 6, 4, 1], np.float32) / 16
BUNDLE = Path(__file__).parents[2] / "mlx_starflow" / "assets" / "default"


def _blur(x: np.ndarray) -> np.ndarray:
    """Binomial blur of pictures (N, H, W, C), edges mirrored."""
    for axis in (1, 2):
        width = [(2, 2) if a == axis else (0, 0) for a in range(4)]
        padded = np.pad(x, width, mode="reflect")
        n = x.shape[axis]
        x = sum(k * np.take(padded, range(i, i + n), axis) for i, k in enumerate(_KERNEL.tolist()))
    return x


def _up(x: np.ndarray) -> np.ndarray:
    """Double the size: zeros between the pixels, then the blur with four times the weight."""
    n, height, width, channels = x.shape
    wide = np.zeros((n, 2 * height, 2 * width, channels), np.float32)
    wide[:, ::2, ::2] = x
    return 4 * _blur(wide)


def pyramid(pictures: np.ndarray, levels: int = LEVELS) -> list[np.ndarray]:
    """Laplacian pyramid of uint8 pictures (N, H, W, 3), finest first; the last is the remainder."""
    x, bands = pictures.astype(np.float32), []
    for _ in range(levels - 1):
        small = _blur(x)[:, ::2, ::2]
        bands.append(x - _up(small))
        x = small
    return [*bands, x]


def patches_of(band: np.ndarray, rng: np.random.Generator, count: int = _PATCHES) -> np.ndarray:
    """`count` patches of each picture at random places: (N·count, 7·7·C)."""
    n, height, width, channels = band.shape
    top = rng.integers(height - _PATCH + 1, size=(n, count))
    left = rng.integers(width - _PATCH + 1, size=(n, count))
    step = np.arange(_PATCH)
    rows = (top[:, :, None] + step)[:, :, :, None]
    columns = (left[:, :, None] + step)[:, :, None, :]
    found = band[np.arange(n)[:, None, None, None], rows, columns]
    return found.reshape(n * count, _PATCH * _PATCH * channels)


def _project(patches: np.ndarray, mean, deviation, directions: np.ndarray) -> np.ndarray:
    channels = len(mean)
    scaled = (patches.reshape(-1, _PATCH * _PATCH, channels) - mean) / deviation
    return np.sort(scaled.reshape(len(patches), -1) @ directions, axis=0)


def swd(pictures: np.ndarray, reference: np.ndarray, seed: int = 0) -> list[float]:
    """Distance ×1000 at each level, finest first, of pictures (N, H, W, 3) uint8 to as many others.

    Both sets are normalized with the reference's mean and standard deviation of each channel and
    level. The places of the patches are chosen at random, separately for the two sets.
    """
    if pictures.shape != reference.shape:
        raise ValueError(f"pictures have shape {pictures.shape}; expected {reference.shape}")
    rng = np.random.default_rng(seed)
    distances = []
    for ours, theirs in zip(pyramid(pictures), pyramid(reference), strict=True):
        apart = [_level_distance(ours, theirs, rng) for _ in range(_REPEATS)]
        distances.append(1000 * float(np.mean(apart)))
    return distances


def _level_distance(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> float:
    a, b = patches_of(ours, rng), patches_of(theirs, rng)
    channels = theirs.shape[-1]
    flat = b.reshape(-1, channels)
    mean, deviation = flat.mean(0), flat.std(0) + 1e-6
    directions = rng.standard_normal((a.shape[1], _DIRECTIONS)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    sides = (_project(patches, mean, deviation, directions) for patches in (a, b))
    return float(np.abs(np.subtract(*sides)).mean())


def gradient_energy(pictures: np.ndarray) -> float:
    """Mean absolute difference of horizontal and vertical neighbours, pixels in [0, 1]."""
    x = pictures.astype(np.float32) / 255
    return float(np.abs(np.diff(x, axis=2)).mean() + np.abs(np.diff(x, axis=1)).mean())


def compare(pictures: np.ndarray, reference: np.ndarray) -> dict:
    """Distances of the levels, their mean, and the gradient energy relative to the reference's."""
    distances = swd(pictures, reference)
    return {
        "distances": [round(d, 1) for d in distances],
        "mean": round(float(np.mean(distances)), 2),
        "gradient_energy": round(gradient_energy(pictures) / gradient_energy(reference), 3),
    }


def reconstruct(pipe, pictures: np.ndarray) -> np.ndarray:
    """Encode and decode pictures (N, H, W, 3) with the bundle's autoencoder."""
    import mlx.core as mx

    latents = pipe.vae.encode(mx.array(pictures.astype(np.float32) / 127.5 - 1))
    return np.stack([np.asarray(picture) for picture in pipe.decode(latents)])


def measure(pipe, count: int = 96) -> dict:
    """Compare other paintings, reconstructions and samples with paintings of the same captions."""
    size = pipe.config.image_size
    scenes, captions = scenes_and_captions(2 * count, read_vocabulary(pipe.directory), SEED)
    paintings, others = np.split(paint_all(scenes, size), 2)
    decoded = reconstruct(pipe, paintings)
    drawn = [np.asarray(pipe.generate(c, seed=i).images[0]) for i, c in enumerate(captions[:count])]
    found = {
        "other paintings": compare(others, paintings),
        "reconstructions": compare(decoded, paintings),
        "samples": compare(np.stack(drawn), paintings),
    }
    error = (decoded.astype(np.float32) - paintings) / 255
    found["reconstructions"]["psnr"] = round(
        float(np.mean(-10 * np.log10((error**2).mean((1, 2, 3))))), 2
    )
    found["samples"]["times_other"] = round(
        found["samples"]["mean"] / found["other paintings"]["mean"], 3
    )
    return {"captions": count, **found}


def main() -> None:
    import mlx_starflow as sf

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=BUNDLE)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--output", type=Path, help="also write the numbers here, as JSON")
    options = parser.parse_args()
    with sf.load(options.bundle) as pipe:
        found = measure(pipe, options.count)
    for name, row in found.items():
        print(f"{name}: {row}")
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
