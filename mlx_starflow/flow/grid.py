"""Geometry: from images to tokens and back, token order, rotary angles.

An image or latent is (B, H, W, C), channels last; its tokens are (B, T, D) in raster order with
T = (H / p)(W / p) and D = p * p * C. Source of the conventions: arXiv 2506.06276 and 2412.06329.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from ..config import FlowConfig
from ..errors import UsageError

TEXT_ANGLES = 8  # rotary angles of a head that count text positions, in a model with text
ROPE_BASE = 10000.0


@dataclass(frozen=True)
class Grid:
    """The token grid of one picture."""

    height: int  # rows of tokens
    width: int  # tokens in a row

    @property
    def tokens(self) -> int:
        """T, the number of tokens."""
        return self.height * self.width


def grid_of(x: mx.array, config: FlowConfig) -> Grid:
    """The token grid of x (B, H, W, C). Errors: UsageError if x does not fit the model."""
    if x.ndim != 4 or x.shape[-1] != config.in_channels:
        raise UsageError(
            f"Expected an array (B, H, W, {config.in_channels}), channels last; found shape "
            f"{tuple(x.shape)}."
        )
    p = config.patch_size
    if x.shape[1] % p or x.shape[2] % p or not x.shape[1] or not x.shape[2]:
        raise UsageError(
            f"Height and width {x.shape[1:3]} must be multiples of the patch size {p}."
        )
    return Grid(x.shape[1] // p, x.shape[2] // p)


def patchify(x: mx.array, config: FlowConfig) -> mx.array:
    """(B, H, W, C) -> (B, T, D). Inside a token: STARFlow (row, column, channel), channel
    fastest; TarFlow (channel, row, column), channel slowest."""
    grid, p, c = grid_of(x, config), config.patch_size, config.in_channels
    x = x.reshape(x.shape[0], grid.height, p, grid.width, p, c)
    inside = (5, 2, 4) if config.model_type == "tarflow" else (2, 4, 5)
    return x.transpose(0, 1, 3, *inside).reshape(x.shape[0], grid.tokens, p * p * c)


def unpatchify(tokens: mx.array, grid: Grid, config: FlowConfig) -> mx.array:
    """(B, T, D) -> (B, H, W, C), the inverse of ``patchify``."""
    b, p, c = tokens.shape[0], config.patch_size, config.in_channels
    if config.model_type == "tarflow":
        x = tokens.reshape(b, grid.height, grid.width, c, p, p).transpose(0, 1, 4, 2, 5, 3)
    else:
        x = tokens.reshape(b, grid.height, grid.width, p, p, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, grid.height * p, grid.width * p, c)


def reverse(tokens: mx.array) -> mx.array:
    """(B, T, D) with the token axis reversed. A gather, since compiled code does not accept the
    negative stride of a reversed slice."""
    return mx.take(tokens, mx.arange(tokens.shape[1] - 1, -1, -1), axis=1)


def spatial_angles(
    grid: Grid, head_dim: int, grid_size: float, text_length: int, has_text: bool
) -> mx.array:
    """Rotary angles (text_length + T, head_dim / 2) of a block with spatial positions.

    The rows of the text positions come first. ``has_text``: whether the model has text. The last 8
    angles of a head then encode the text position, also in blocks without text.
    """
    pairs = head_dim // 2
    spatial = pairs - TEXT_ANGLES if has_text else pairs
    if spatial < 2 or spatial % 2:
        raise UsageError(
            f"head_dim {head_dim} leaves {spatial} angles for two spatial axes; expected an even "
            "number of at least 2."
        )
    n = spatial // 2
    frequency = ROPE_BASE ** (-2 * mx.arange(n) / spatial)
    stretch = grid_size / math.sqrt(grid.tokens)
    position = mx.arange(grid.tokens)
    row, column = position // grid.width, position % grid.width
    parts = [(row * stretch)[:, None] * frequency, (column * stretch)[:, None] * frequency]
    if has_text:
        parts.append(mx.zeros((grid.tokens, TEXT_ANGLES)))
    angles = mx.concatenate(parts, axis=1)
    if text_length:
        text_frequency = ROPE_BASE ** (-mx.arange(TEXT_ANGLES) / TEXT_ANGLES)
        place = mx.arange(text_length) / text_length * grid_size
        text = mx.concatenate(
            [mx.zeros((text_length, spatial)), place[:, None] * text_frequency], axis=1
        )
        angles = mx.concatenate([text, angles])
    return angles


def sequence_angles(length: int, head_dim: int) -> mx.array:
    """Rotary angles (length, head_dim / 2) of a block that numbers text and image tokens as one
    sequence, as a language model does."""
    frequency = ROPE_BASE ** (-2 * mx.arange(head_dim // 2) / head_dim)
    return mx.arange(length)[:, None] * frequency
