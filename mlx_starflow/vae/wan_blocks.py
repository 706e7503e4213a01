"""Parts of the WAN2.2 autoencoder. Arrays are clips (B, N, H, W, C), channels last.

All parts are causal in time, so a clip can be processed a few frames at a time: each part keeps the
last frames of its input in a ``Past``. A 3-D convolution is computed as a 2-D convolution over
neighbouring frames joined as channels, which every version of MLX computes correctly on a GPU for
all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import silu
from ..device.pieces import Pieces, is_short
from .blocks import ATTENTION_ROWS
from .conv import Conv3x3


class Past:
    """The last input frames of every part of an encoder or decoder."""

    def __init__(self) -> None:
        self.begun = False  # whether the first frame has been seen
        self.pieces = Pieces()
        self._frames: dict[int, mx.array] = {}

    def of(self, part: nn.Module, like: mx.array, count: int) -> mx.array:
        """The last ``count`` frames of a part's input; zeros at the start of a clip."""
        if id(part) in self._frames:
            return self._frames[id(part)]
        return mx.zeros((like.shape[0], count, *like.shape[2:]), like.dtype)

    def keep(self, part: nn.Module, frames: mx.array) -> None:
        # A copy: a slice would hold the memory of all frames that it was cut from.
        self._frames[id(part)] = mx.contiguous(frames)

    def arrays(self) -> list[mx.array]:
        return list(self._frames.values())


class CausalConv(Conv3x3):
    """3x3x3 convolution that is causal in time: over each frame, padded with zeros, and the two
    frames before it.

    The three frames are joined as channels: the weight is (out, 3, 3, 3 * in), and its last axis
    has the frame as the slower index.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(3 * in_channels, out_channels)

    def __call__(self, x: mx.array, past: Past) -> mx.array:  # type: ignore[override]
        frames = mx.concatenate([past.of(self, x, 2), x], axis=1)
        past.keep(self, frames[:, -2:])
        convolve = super().__call__

        def compute(start: int, stop: int) -> mx.array:
            return per_frame(three_of(frames[:, start : stop + 2]), convolve)

        work = 2.0 * self.weight.size * x.shape[0] * x.shape[2] * x.shape[3]
        return in_pieces(x.shape[1], work, past, compute)


def in_pieces(
    count: int, work: float, past: Past, compute: Callable[[int, int], mx.array]
) -> mx.array:
    """``compute(start, stop)`` of ``count`` frames, each of ``work`` operations: all at once, or
    one after another if together they are too much for an evaluation."""
    n = count if is_short(work * count) else 1
    done = []
    for start in range(0, count, n):
        done.append(compute(start, start + n))
        past.pieces.add(work * n, done[-1])
    return done[0] if len(done) == 1 else mx.concatenate(done, axis=1)


def three_of(frames: mx.array, stride: int = 1) -> mx.array:
    """Frames (B, n + 2, H, W, C) -> (B, n, H, W, 3 C) for stride 1: from the third frame on, every
    ``stride``-th frame with the two frames before it, oldest first, joined as channels."""
    count = frames.shape[1] - 2
    return mx.concatenate([frames[:, k : k + count : stride] for k in range(3)], axis=-1)


class Norm(nn.Module):
    """gamma sqrt(C) x / |x|, with the norm over the channels of each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gamma = mx.ones((channels,))

    def __call__(self, x: mx.array) -> mx.array:
        square = mx.square(x.astype(mx.float32)).sum(axis=-1, keepdims=True)
        scale = math.sqrt(x.shape[-1]) / mx.maximum(mx.sqrt(square), 1e-12)
        return x * scale.astype(x.dtype) * self.gamma


class Residual(nn.Module):
    """Two times norm, SiLU and convolution, plus a skip connection, which has a linear layer if the
    width changes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm1 = Norm(in_channels)
        self.conv1 = CausalConv(in_channels, out_channels)
        self.norm2 = Norm(out_channels)
        self.conv2 = CausalConv(out_channels, out_channels)
        if in_channels != out_channels:
            self.shortcut = nn.Linear(in_channels, out_channels)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        h = self.conv1(silu(self.norm1(x)), past)
        h = self.conv2(silu(self.norm2(h)), past)
        return h + (self.shortcut(x) if "shortcut" in self else x)


class Attention(nn.Module):
    """Self-attention over the positions of each frame, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm = Norm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def __call__(self, x: mx.array) -> mx.array:
        _, _, height, width, channels = x.shape
        h = self.norm(x).reshape(-1, 1, height * width, channels)
        q, k, v = mx.split(self.to_qkv(h), 3, axis=-1)
        rows = [
            mx.fast.scaled_dot_product_attention(
                q[:, :, i : i + ATTENTION_ROWS], k, v, scale=channels**-0.5
            )
            for i in range(0, height * width, ATTENTION_ROWS)
        ]
        return x + self.proj(mx.concatenate(rows, axis=2)).reshape(x.shape)


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resnets = [Residual(channels, channels) for _ in range(2)]
        self.attention = Attention(channels)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        x = self.attention(self.resnets[0](x, past))
        return self.resnets[1](x, past)


class Down(nn.Module):
    """Halves height and width and, if ``time``, the number of frames after the first."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)
        if time:
            self.time_conv = nn.Linear(3 * channels, channels)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        edges = [(0, 0), (0, 1), (0, 1), (0, 0)]
        x = per_frame(x, lambda f: self.conv(mx.pad(f, edges)))
        if "time_conv" not in self:
            return x
        frames = mx.concatenate([past.of(self, x, 1), x], axis=1) if past.begun else x
        past.keep(self, frames[:, -1:])
        halved = [self.time_conv(three_of(frames, 2))] if frames.shape[1] > 2 else []
        return mx.concatenate(halved if past.begun else [x[:, :1], *halved], axis=1)


class Up(nn.Module):
    """Doubles, if ``time``, the number of frames after the first, then height and width."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conv = Conv3x3(channels, channels)
        if time:
            self.time_conv = nn.Linear(3 * channels, 2 * channels)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        if "time_conv" in self:
            x = self._doubled(x, past)
        work = 8.0 * self.conv.weight.size * x.shape[0] * x.shape[2] * x.shape[3]
        return in_pieces(
            x.shape[1], work, past, lambda i, j: per_frame(x[:, i:j], self.conv.of_doubled)
        )

    def _doubled(self, x: mx.array, past: Past) -> mx.array:
        # The first frame of a clip is not doubled, and later frames do not depend on it here.
        later = x if past.begun else x[:, 1:]
        frames = mx.concatenate([past.of(self, x, 2), later], axis=1)
        past.keep(self, frames[:, -2:])
        doubled = []
        if later.shape[1]:
            first, second = mx.split(self.time_conv(three_of(frames)), 2, axis=-1)
            pairs = mx.stack([first, second], axis=2)
            doubled = [pairs.reshape(x.shape[0], -1, *x.shape[2:])]
        return mx.concatenate(doubled if past.begun else [x[:, :1], *doubled], axis=1)


def averaged(x: mx.array, channels: int, time: int, space: int, past: Past) -> mx.array:
    """The skip connection around a stage of the encoder: the numbers of each cell of
    time x space x space positions, with the channel as the slowest index, are averaged in
    consecutive groups to ``channels`` channels."""
    if time == 2 and not past.begun:
        x = mx.pad(x, [(0, 0), (1, 0), (0, 0), (0, 0), (0, 0)])
    b, n, h, w, c = x.shape
    x = x.reshape(b, n // time, time, h // space, space, w // space, space, c)
    x = x.transpose(0, 1, 3, 5, 7, 2, 4, 6)  # b, n, h, w, channel, frame, row, column
    return x.reshape(*x.shape[:4], channels, -1).mean(axis=-1)


def repeated(x: mx.array, channels: int, time: int, space: int, past: Past) -> mx.array:
    """The skip connection around a stage of the decoder: the channels of each position are repeated
    to fill a cell of time x space x space positions with ``channels`` channels."""
    b, n, h, w, c = x.shape
    x = mx.repeat(x, channels * time * space * space // c, axis=-1)
    x = x.reshape(b, n, h, w, channels, time, space, space)
    x = x.transpose(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, n * time, h * space, w * space, channels)
    return x if past.begun else x[:, time - 1 :]


def per_frame(x: mx.array, work: Callable[[mx.array], mx.array]) -> mx.array:
    """Apply ``work`` to the frames of x (B, N, H, W, C) as a batch of pictures (B * N, H, W, C)."""
    y = work(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])
