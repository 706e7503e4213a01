"""Layers of the autoencoder. Attributes are named as in diffusers, so weights keep their names.

All arrays are channels last, (B, H, W, C); convolution weights are (out, kh, kw, in).
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import silu
from ..device.pieces import Pieces
from ..device.typed import parameters_of
from .conv import Conv1x1, Conv3x3
from .norm import GroupNorm

# Query rows per attention call. The single head is as wide as the block (512 in the SD
# autoencoders), too wide for MLX's fused kernels, so the scores are stored and must be bounded.
ATTENTION_ROWS = 4096


class ResnetBlock(nn.Module):
    """A residual block: twice norm, SiLU and convolution. If the width changes, a 1x1 convolution
    is applied to the skip connection."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm1 = GroupNorm(groups, in_channels)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.norm2 = GroupNorm(groups, out_channels)
        self.conv2 = Conv3x3(out_channels, out_channels)
        if in_channels != out_channels:
            self.conv_shortcut = Conv1x1(in_channels, out_channels)

    def __call__(self, x: mx.array) -> mx.array:
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        if "conv_shortcut" in self:
            x = self.conv_shortcut(x)
        return x + h


class Attention(nn.Module):
    """Attention between all pixels, with a single head as wide as the block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.group_norm = GroupNorm(groups, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = [nn.Linear(channels, channels)]

    def __call__(self, x: mx.array) -> mx.array:
        batch, height, width, channels = x.shape
        h = self.group_norm(x).reshape(batch, 1, height * width, channels)
        q, k, v = self.to_q(h), self.to_k(h), self.to_v(h)
        rows = [
            mx.fast.scaled_dot_product_attention(
                q[:, :, i : i + ATTENTION_ROWS], k, v, scale=channels**-0.5
            )
            for i in range(0, height * width, ATTENTION_ROWS)
        ]
        h = rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=2)
        return x + self.to_out[0](h).reshape(x.shape)


class MidBlock(nn.Module):
    """Two ResNet blocks, with attention in between if the configuration has it."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resnets = [ResnetBlock(channels, channels, groups) for _ in range(2)]
        if attention:
            self.attentions = [Attention(channels, groups)]

    def __call__(self, x: mx.array, pieces: Pieces) -> mx.array:
        """``pieces``: of the whole encoder or decoder."""
        x = self.resnets[0](x)
        pieces.add(_operations(x, self.resnets[0]), x)
        if "attentions" in self:
            x = self.attentions[0](x)
            between = 4.0 * x.shape[0] * (x.shape[1] * x.shape[2]) ** 2 * x.shape[3]
            pieces.add(_operations(x, self.attentions[0]) + between, x)
        x = self.resnets[1](x)
        pieces.add(_operations(x, self.resnets[1]), x)
        return x


class Downsample(nn.Module):
    """Halves height and width. Pads only the bottom and right edges, as in diffusers."""

    def __init__(self, channels: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv(mx.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)]))


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conv = Conv3x3(channels, channels)

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv.of_doubled(x)


class Stage(nn.Module):
    """The ResNet blocks of one resolution, followed by down- or upsampling unless it is the last
    one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        groups: int,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resnets = [
            ResnetBlock(in_channels if i == 0 else out_channels, out_channels, groups)
            for i in range(layers)
        ]
        if downsample:
            self.downsamplers = [Downsample(out_channels)]
        if upsample:
            self.upsamplers = [Upsample(out_channels)]

    def __call__(self, x: mx.array, pieces: Pieces) -> mx.array:
        """``pieces``: of the whole encoder or decoder."""
        for resnet in self.resnets:
            x = resnet(x)
            pieces.add(_operations(x, resnet), x)
        for step in (*self.get("downsamplers", ()), *self.get("upsamplers", ())):
            x = step(x)
            pieces.add(_operations(x, step), x)
        return x


def _operations(x: mx.array, part: nn.Module) -> float:
    """Floating-point operations of the layer that computed x (B, H, W, C), from its weights."""
    pixels = x.shape[0] * x.shape[1] * x.shape[2]
    return 2.0 * pixels * sum(w.size for _, w in parameters_of(part) if w.ndim > 1)
