"""Geometry: from images and clips to tokens and back, token order, rotary angles.

An image or latent is (B, H, W, C), channels last; its tokens are (B, T, D) in raster order with
T = (H / p)(W / p) and D = p * p * C. A clip is (B, N, H, W, C): its tokens are those of its frames
one after another, N F of them, F per frame. Source of the conventions: arXiv 2506.06276, 2412.06329
and, for clips, 2511.20462.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from ..config import FlowConfig
from ..errors import UsageError

# Rotary angles of a head that count text positions and, in clips, frames; in a model with text.
TEXT_ANGLES = 8
ROPE_BASE = 10000.0


@dataclass(frozen=True)
class Grid:
    """The token grid of one picture, or of every frame of a clip."""

    height: int  # rows of tokens
    width: int  # tokens in a row
    frames: int | None = None  # latent frames of a clip; None: a picture

    @property
    def frame_tokens(self) -> int:
        """F, the number of tokens of one frame."""
        return self.height * self.width

    @property
    def tokens(self) -> int:
        """T, the number of tokens of the picture or of all frames."""
        return self.frame_tokens * (1 if self.frames is None else self.frames)

    @property
    def one_frame(self) -> Grid:
        """The grid of one frame, as a picture."""
        return Grid(self.height, self.width)

    def with_frames(self, frames: int) -> Grid:
        """The grid of a clip with this number of such frames."""
        return Grid(self.height, self.width, frames)


def grid_of(x: mx.array, config: FlowConfig) -> Grid:
    """The token grid of x (B, H, W, C), or (B, N, H, W, C) for a model of clips. Errors: UsageError
    if x does not fit the model."""
    if x.ndim == 5 and x.shape[-1] == config.in_channels:
        check_clips(config)
    elif x.ndim != 4 or x.shape[-1] != config.in_channels:
        clips = f" or a clip (B, N, H, W, {config.in_channels})" if config.frames > 1 else ""
        raise UsageError(
            f"Expected an array (B, H, W, {config.in_channels}){clips}, channels last; found shape "
            f"{tuple(x.shape)}."
        )
    p, (height, width) = config.patch_size, x.shape[-3:-1]
    if height % p or width % p or not height or not width:
        raise UsageError(
            f"Height and width {(height, width)} must be multiples of the patch size {p}."
        )
    if x.ndim == 4:
        return Grid(height // p, width // p)
    if not x.shape[1]:
        raise UsageError("A clip needs at least one frame.")
    return Grid(height // p, width // p, x.shape[1])


def check_clips(config: FlowConfig) -> None:
    """UsageError where a flow has no clips: it is one of pictures, or its blocks have positions
    that are defined for pictures only."""
    if config.frames == 1:
        raise UsageError("This is a model of pictures; it makes no clips.")
    kinds = {b.position for b in config.blocks if b.layers}
    if "sequence" in kinds:
        raise UsageError("This model counts positions in one line (a Gemma-shaped deep block): "
                         "clips are not defined for it, only pictures.")  # fmt: skip
    if "table" in kinds:
        raise UsageError("This model has a learned table of positions: it has no clips.")
    if not config.text_channels:
        raise UsageError("This model has no text, hence no rotary axis for time: it has no clips.")


def patchify(x: mx.array, config: FlowConfig) -> mx.array:
    """(B, H, W, C) or (B, N, H, W, C) -> (B, T, D). Inside a token: STARFlow (row, column,
    channel), channel fastest; TarFlow (channel, row, column), channel slowest."""
    grid, p, c, batch = grid_of(x, config), config.patch_size, config.in_channels, x.shape[0]
    x = x.reshape(-1, grid.height, p, grid.width, p, c)
    inside = (5, 2, 4) if config.model_type == "tarflow" else (2, 4, 5)
    return x.transpose(0, 1, 3, *inside).reshape(batch, grid.tokens, p * p * c)


def unpatchify(tokens: mx.array, grid: Grid, config: FlowConfig) -> mx.array:
    """(B, T, D) -> (B, H, W, C) or (B, N, H, W, C), the inverse of ``patchify``."""
    b, p, c = tokens.shape[0], config.patch_size, config.in_channels
    if config.model_type == "tarflow":
        x = tokens.reshape(b, grid.height, grid.width, c, p, p).transpose(0, 1, 4, 2, 5, 3)
    else:
        x = tokens.reshape(-1, grid.height, grid.width, p, p, c).transpose(0, 1, 3, 2, 4, 5)
    frames = () if grid.frames is None else (grid.frames,)
    return x.reshape(b, *frames, grid.height * p, grid.width * p, c)


def reverse(tokens: mx.array) -> mx.array:
    """(B, T, D) with the token axis reversed. A gather, since compiled code does not accept the
    negative stride of a reversed slice."""
    return mx.take(tokens, mx.arange(tokens.shape[1] - 1, -1, -1), axis=1)


def spatial_pairs(head_dim: int, has_text: bool) -> int:
    """The rotary angles of a head that encode row and column; ``spatial_angles`` needs an even
    number of at least 2. ``has_text``: whether the model has text."""
    return head_dim // 2 - TEXT_ANGLES if has_text else head_dim // 2


def spatial_angles(
    grid: Grid, head_dim: int, grid_size: float, text_length: int, has_text: bool
) -> mx.array:
    """Rotary angles (text_length + T, head_dim / 2) of a block with spatial positions.

    The rows of the text positions come first. ``grid_size``: P. ``has_text``: whether the model has
    text. The last 8 angles of a head then encode the text position, also in blocks without text,
    and for the tokens of a clip the number of their frame, 0, 1, 2 ...
    """
    spatial = spatial_pairs(head_dim, has_text)
    if spatial < 2 or spatial % 2:
        raise UsageError(
            f"head_dim {head_dim} leaves {spatial} angles for two spatial axes; expected an even "
            "number of at least 2."
        )
    n = spatial // 2
    frequency = ROPE_BASE ** (-2 * mx.arange(n) / spatial)
    stretch = grid_size / math.sqrt(grid.frame_tokens)
    place = mx.arange(grid.tokens)
    frame, position = place // grid.frame_tokens, place % grid.frame_tokens
    row, column = position // grid.width, position % grid.width
    parts = [(row * stretch)[:, None] * frequency, (column * stretch)[:, None] * frequency]
    text_frequency = ROPE_BASE ** (-mx.arange(TEXT_ANGLES) / TEXT_ANGLES)
    if has_text:
        parts.append(frame[:, None] * text_frequency)
    angles = mx.concatenate(parts, axis=1)
    if text_length:
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
