"""The encoder (image to moments) and the decoder (latent to image) of the autoencoder.

f is the number of pixels per latent cell along one side, c the number of latent channels.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..config import VAEConfig
from ..device.activations import silu
from ..device.pieces import Pieces
from .blocks import MidBlock, Stage
from .conv import Conv3x3
from .norm import GroupNorm


class Encoder(nn.Module):
    """Image (B, H, W, 3) -> mean and log-variance (B, H/f, W/f, 2c), before ``quant_conv``."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = Conv3x3(config.in_channels, widths[0])
        self.down_blocks = [
            Stage(
                widths[max(i - 1, 0)],
                width,
                config.layers_per_block,
                groups,
                downsample=i < len(widths) - 1,
            )
            for i, width in enumerate(widths)
        ]
        self.mid_block = MidBlock(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = GroupNorm(groups, widths[-1])
        self.conv_out = Conv3x3(widths[-1], 2 * config.latent_channels)

    def __call__(self, x: mx.array) -> mx.array:
        x, pieces = self.conv_in(x), Pieces()
        for block in self.down_blocks:
            x = block(x, pieces)
        x = self.mid_block(x, pieces)
        pieces.end(x)
        return self.conv_out(silu(self.conv_norm_out(x)))


class Decoder(nn.Module):
    """Latent (B, h, w, c), after ``post_quant_conv``, -> image (B, h*f, w*f, 3), in two steps.

    ``middle`` works at the resolution of the latent and contains the attention. ``upper`` needs
    nearly all of the memory, and its pixels depend on a neighbourhood only, apart from the
    statistics of its norms. For a large picture, ``upper`` is therefore computed in tiles.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = Conv3x3(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks = [
            Stage(
                widths[max(i - 1, 0)],
                width,
                config.layers_per_block + 1,
                groups,
                upsample=i < len(widths) - 1,
            )
            for i, width in enumerate(widths)
        ]
        self.conv_norm_out = GroupNorm(groups, widths[-1])
        self.conv_out = Conv3x3(widths[-1], config.out_channels)

    def middle(self, z: mx.array) -> mx.array:
        """Latent (B, h, w, c) -> (B, h, w, widest)."""
        pieces = Pieces()
        x = self.mid_block(self.conv_in(z), pieces)
        pieces.end(x)
        return x

    def upper(self, x: mx.array) -> mx.array:
        """(B, h, w, widest) -> image (B, h*f, w*f, 3)."""
        pieces = Pieces()
        for block in self.up_blocks:
            x = block(x, pieces)
        pieces.end(x)
        return self.conv_out(silu(self.conv_norm_out(x)))
