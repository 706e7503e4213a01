"""The measurements of pictures from which the statistics are computed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from PIL import Image

from ..device.wired import wired
from ..editing.inputs import latents_of
from ..exact.composition import composition
from ..exact.scoring import noise_kind, noised
from ..flow import Context
from ..flow.grid import grid_of
from ..pictures.arrays import from_picture
from ..pipeline import Pipeline

BATCH = 16  # pictures in one pass
_LEAST_LOSS, _LEAST_DETAIL = 1e-5, 1e-3  # added before the logarithm


@dataclass(frozen=True)
class Measured:
    """Measurements of N pictures of one size, with T tokens each."""

    parts: np.ndarray  # (N, T, K + 1) terms of -log p in nats, see ``composition``; draws averaged
    lost: np.ndarray  # (N, T) log of the autoencoder's squared error; zeros without a VAE
    detail: np.ndarray  # (N, T) log of the mean difference between neighbouring pixels
    png: np.ndarray  # (N,) bits per pixel value of the picture as a PNG
    grid: tuple[int, int]  # rows and columns of tokens
    numbers: int  # dimensions of the flow's data in one picture

    def __len__(self) -> int:
        return len(self.png)

    @property
    def bits(self) -> np.ndarray:
        """(N,) bits per dimension, -log2 p / numbers."""
        return self.parts.sum(axis=(1, 2)) / self.numbers / np.log(2)

    def take(self, rows: Sequence[int] | np.ndarray) -> Measured:
        """The measurements of the pictures at these indices."""
        return Measured(
            self.parts[rows], self.lost[rows], self.detail[rows], self.png[rows], self.grid,
            self.numbers,
        )  # fmt: skip

    def and_(self, other: Measured) -> Measured:
        """The measurements of both, those of ``other`` last."""
        return Measured(
            np.concatenate([self.parts, other.parts]),
            np.concatenate([self.lost, other.lost]),
            np.concatenate([self.detail, other.detail]),
            np.concatenate([self.png, other.png]),
            self.grid,
            self.numbers,
        )


@wired()
def measure(
    pipe: Pipeline, pictures: Sequence[Image.Image], context: Context, draws: int, seed: int
) -> Measured:
    """Measure pictures of one of the model's sizes, with one row of context for all.

    ``draws``: number of noise draws, made from ``seed``, the same for all pictures. Errors:
    NumericsError.
    """
    rows = []
    for start in range(0, len(pictures), BATCH):
        rows.append(_batch(pipe, pictures[start : start + BATCH], context, draws, seed))
    whole = rows[0]
    for row in rows[1:]:
        whole = whole.and_(row)
    return whole


def _batch(
    pipe: Pipeline, pictures: Sequence[Image.Image], context: Context, draws: int, seed: int
) -> Measured:
    flow = pipe.flow
    x = latents_of(pipe, pictures)
    grid, kind = grid_of(x, flow.config), noise_kind(flow.config)
    own = None if context is None else mx.repeat(context, len(pictures), axis=0)
    key, drawn = mx.random.key(seed), []
    for _ in range(draws):
        key, draw = mx.random.split(key)
        drawn.append(composition(flow, noised(x, flow.config, kind, draw), own))
    shape = (grid.height, grid.width)
    pixels = mx.concatenate([from_picture(p, 3) for p in pictures])
    return Measured(
        parts=np.mean(drawn, axis=0),
        lost=_lost(pipe, x, pixels, shape),
        detail=_detail(np.array(pixels), shape),
        png=np.array([png_bits(p) for p in pictures]),
        grid=shape,
        numbers=x[0].size,
    )


def _lost(pipe: Pipeline, x: mx.array, pixels: mx.array, shape: tuple[int, int]) -> np.ndarray:
    vae = pipe.vae
    if vae is None:
        return np.zeros((x.shape[0], shape[0] * shape[1]))
    parts = []
    for row in range(x.shape[0]):  # one by one, since a VAE's activations are large
        parts.append(mx.square(vae.decode(x[row : row + 1]) - pixels[row : row + 1]).mean(axis=-1))
        mx.eval(parts[-1])
    return np.log(by_token(np.array(mx.concatenate(parts)), shape) + _LEAST_LOSS)


def _detail(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    across = np.abs(np.diff(pixels, axis=2, append=pixels[:, :, -1:]))
    down = np.abs(np.diff(pixels, axis=1, append=pixels[:, -1:]))
    return np.log(by_token((across + down).mean(axis=-1), shape) + _LEAST_DETAIL)


def by_token(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixel values (N, H, W) -> their mean in the area of each token (N, T)."""
    n, height, width = values.shape
    rows, columns = shape
    cells = values.reshape(n, rows, height // rows, columns, width // columns)
    return cells.mean(axis=(2, 4)).reshape(n, rows * columns).astype(np.float64)


def png_bits(picture: Image.Image) -> float:
    """Size of the picture as a PNG, in bits per pixel value: a measure of its complexity."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="PNG", optimize=True)
    return 8 * file.tell() / (picture.width * picture.height * 3)
