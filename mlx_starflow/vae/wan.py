"""The WAN2.2 autoencoder, between clips of M = 4N - 3 frames and N latent frames.

A picture is a clip of one frame. Clips are processed one latent frame at a time, so that memory
does not grow with the length and frames can be shown when they are decoded; the result equals that
for the whole clip at once up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import silu
from ..errors import ImageError, UsageError
from .tiling import in_tiles
from .wan_blocks import (
    CausalConv,
    Down,
    Middle,
    Norm,
    Past,
    Residual,
    Up,
    averaged,
    repeated,
)
from .wan_config import DECODER_STEPS, ENCODER_STEPS, PATCH, WanConfig

# By default, a latent with more cells than this is decoded in tiles of TILE by TILE cells. All
# published sizes are below it.
LARGE = 64 * 64
TILE = 32


class DownStage(nn.Module):
    def __init__(self, in_channels: int, channels: int, step: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resnets = [Residual(in_channels, channels), Residual(channels, channels)]
        self.step, self.channels = step, channels
        if step != (1, 1):
            self.downsampler = Down(channels, time=step[0] == 2)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        skip = averaged(x, self.channels, *self.step, past)
        for resnet in self.resnets:
            x = resnet(x, past)
        return skip + (self.downsampler(x, past) if "downsampler" in self else x)


class UpStage(nn.Module):
    def __init__(self, in_channels: int, channels: int, step: tuple[int, int] | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resnets = [Residual(in_channels if i == 0 else channels, channels) for i in range(3)]
        self.step, self.channels = step, channels
        if step is not None:
            self.upsampler = Up(channels, time=step[0] == 2)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        skip = None if self.step is None else repeated(x, self.channels, *self.step, past)
        for resnet in self.resnets:
            x = resnet(x, past)
        return x if skip is None else skip + self.upsampler(x, past)


class WanEncoder(nn.Module):
    """Patches (B, n, H/2, W/2, 12), those of the first frame, then of four frames per latent frame
    -> mean and log-variance (B, n', H/16, W/16, 2c), before ``quant_conv``."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        widths = [config.base_dim * k for k in config.multiples]
        self.conv_in = CausalConv(3 * PATCH * PATCH, widths[0])
        self.down_blocks = [
            DownStage(widths[max(i - 1, 0)], width, ENCODER_STEPS[i])
            for i, width in enumerate(widths)
        ]
        self.mid_block = Middle(widths[-1])
        self.norm_out = Norm(widths[-1])
        self.conv_out = CausalConv(widths[-1], 2 * config.latent_channels)

    def __call__(self, x: mx.array, past: Past) -> mx.array:
        x = self.conv_in(x, past)
        for block in self.down_blocks:
            x = block(x, past)
        x = self.mid_block(x, past)
        return self.conv_out(silu(self.norm_out(x)), past)


class WanDecoder(nn.Module):
    """Latent frames, after ``post_quant_conv`` -> patches (B, n, 8h, 8w, 12), in two parts: the
    attention is in ``middle``; ``upper`` takes nearly all of the memory."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        widths = [config.decoder_base_dim * k for k in config.decoder_multiples]
        self.conv_in = CausalConv(config.latent_channels, widths[0])
        self.mid_block = Middle(widths[0])
        self.up_blocks = [
            UpStage(widths[max(i - 1, 0)], width, DECODER_STEPS[i])
            for i, width in enumerate(widths)
        ]
        self.norm_out = Norm(widths[-1])
        self.conv_out = CausalConv(widths[-1], 3 * PATCH * PATCH)

    def middle(self, z: mx.array, past: Past) -> mx.array:
        return self.mid_block(self.conv_in(z, past), past)

    def upper(self, x: mx.array, past: Past) -> mx.array:
        for block in self.up_blocks:
            x = block(x, past)
        past.begun = True
        return self.conv_out(silu(self.norm_out(x)), past)


class AutoencoderWan(nn.Module):
    """Channels-last autoencoder of clips. Latents are scaled as for the flow: each channel is
    normalised, and frames after the first are multiplied by the temporal scale."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.config = config
        channels = config.latent_channels
        self.encoder = WanEncoder(config)
        self.decoder = WanDecoder(config)
        self.quant_conv = nn.Linear(2 * channels, 2 * channels)
        self.post_quant_conv = nn.Linear(channels, channels)

    def moments(self, clip: mx.array, step: int = 1) -> tuple[mx.array, mx.array]:
        """Clip (B, M, H, W, 3) in [-1, 1] -> mean and log-variance (B, N, H/16, W/16, c), not
        normalised. M is rounded down to 4k + 1, and later frames are left out. ``step``: latent
        frames computed at a time, 0: all. Errors: ImageError if 16 does not divide H and W."""
        factor = self.config.factor
        if clip.ndim != 5 or clip.shape[-1] != 3 or not clip.shape[1]:
            raise ImageError(
                f"The clip to encode has shape {tuple(clip.shape)}; expected (B, M, H, W, 3)."
            )
        if clip.shape[2] % factor or clip.shape[3] % factor:
            raise ImageError(
                f"The frames to encode are {clip.shape[3]}x{clip.shape[2]} pixels; both sides must "
                f"be multiples of {factor}. Resize or crop them first."
            )
        rows = [mx.concatenate(list(self._encoded(clip[i : i + 1], step)), 1)
                for i in range(clip.shape[0])]  # fmt: skip
        mean, logvar = mx.split(mx.concatenate(rows).astype(mx.float32), 2, axis=-1)
        return mean, logvar

    def encode(self, image: mx.array, step: int = 1) -> mx.array:
        """Clip (B, M, H, W, 3) or picture (B, H, W, 3) in [-1, 1] -> the mean of its latent, scaled
        as for the flow: (B, N, H/16, W/16, c) or (B, H/16, W/16, c), float32."""
        if image.ndim == 4:
            return self.encode(image[:, None], step)[:, 0]
        mean, _ = self.moments(image, step)
        shift, scale = mx.array(self.config.latents_mean), mx.array(self.config.latents_std)
        return (mean - shift) / scale * self._scale(0, mean.shape[1])

    def decode(self, latent: mx.array, tile: int | None = None, step: int = 1) -> mx.array:
        """The flow's latent of a clip (B, N, h, w, c) -> (B, 4N - 3, 16h, 16w, 3), or of a picture
        (B, h, w, c) -> (B, 16h, 16w, 3); float32, approximately in [-1, 1].

        ``tile``: side, in latent cells, of the tiles in which the upper part of the decoder is
        computed; overlaps are blended. 0: no tiles; None: tiles only for very large frames.
        ``step``: latent frames computed at a time, 0: all. Errors: UsageError for a latent of the
        wrong shape.
        """
        if latent.ndim == 4:
            return self.decode(latent[:, None], tile, step)[:, 0]
        rows = []
        for i in range(latent.shape[0]):
            frames = self.decode_stream(latent[i : i + 1], tile, step)
            rows.append(mx.concatenate(list(frames), axis=1))
        return mx.concatenate(rows)

    def decode_stream(
        self, latent: mx.array, tile: int | None = None, step: int = 1
    ) -> Iterator[mx.array]:
        """``decode`` as a stream of consecutive frames (B, m, H, W, 3), those of ``step`` latent
        frames at a time; with step 1, m is 1 at first and 4 afterwards."""
        channels = self.config.latent_channels
        if latent.ndim != 5 or latent.shape[-1] != channels or not latent.shape[1]:
            raise UsageError(
                f"The latent to decode has shape {tuple(latent.shape)}; expected "
                f"(B, N, h, w, {channels}), or (B, h, w, {channels}) for a picture."
            )
        if tile is None:
            tile = TILE if latent.shape[2] * latent.shape[3] > LARGE else 0
        return self._decoded(latent, tile, step or latent.shape[1])

    def _decoded(self, latent: mx.array, tile: int, step: int) -> Iterator[mx.array]:
        shift, scale = mx.array(self.config.latents_mean), mx.array(self.config.latents_std)
        past, upper = Past(), _Upper(self.decoder, tile)
        start = 0
        while start < latent.shape[1]:
            stop = start + step
            z = latent[:, start:stop]
            z = z / self._scale(start, z.shape[1]) * scale + shift
            z = self.post_quant_conv(z.astype(self.decoder.conv_in.weight.dtype))
            frames = upper(self.decoder.middle(z, past))
            mx.eval(frames, past.arrays())
            yield frames
            start = stop

    def _encoded(self, clip: mx.array, step: int) -> Iterator[mx.array]:
        clip = clip[:, : (clip.shape[1] - 1) // 4 * 4 + 1]
        x = patches(clip.astype(self.encoder.conv_in.weight.dtype))
        past, start = Past(), 0
        while start < x.shape[1]:
            stop = x.shape[1] if not step else max(start, 1) + 4 * (step - (start == 0))
            moments = self.quant_conv(self.encoder(x[:, start:stop], past))
            past.begun = True
            mx.eval(moments, past.arrays())
            yield moments
            start = stop

    def _scale(self, start: int, count: int) -> mx.array:
        """The temporal scale of ``count`` latent frames from ``start`` on, (count, 1, 1, 1)."""
        scale = [1.0 if f == 0 else self.config.temporal_scale for f in range(start, start + count)]
        return mx.array(scale)[:, None, None, None]


class _Upper:
    """The upper part of the decoder, computed in tiles, each with its own ``Past``."""

    def __init__(self, decoder: WanDecoder, tile: int) -> None:
        self.decoder, self.tile = decoder, tile
        self.pasts: list[Past] = []

    def __call__(self, x: mx.array) -> mx.array:
        numbers = count()
        if not self.tile or (self.tile >= x.shape[2] and self.tile >= x.shape[3]):
            return self._one(next(numbers), x)
        rows = [
            in_tiles(row, lambda part: self._one(next(numbers), part[None])[0], 16, self.tile)
            for row in x
        ]
        return mx.stack(rows)

    def _one(self, number: int, x: mx.array) -> mx.array:
        """Compute one tile. Tiles are in the same order at every call, so the number of a tile
        identifies its ``Past``, which is evaluated with it: before, it holds all activations."""
        if number == len(self.pasts):
            self.pasts.append(Past())
        frames = pixels(self.decoder.upper(x, self.pasts[number]).astype(mx.float32))
        mx.eval(frames, self.pasts[number].arrays())
        return frames


def patches(x: mx.array) -> mx.array:
    """(B, M, H, W, 3) -> (B, M, H/2, W/2, 12); the order of the 12 channels is colour, column, row,
    with the row fastest."""
    b, m, h, w, c = x.shape
    x = x.reshape(b, m, h // PATCH, PATCH, w // PATCH, PATCH, c).transpose(0, 1, 2, 4, 6, 5, 3)
    return x.reshape(b, m, h // PATCH, w // PATCH, -1)


def pixels(x: mx.array) -> mx.array:
    """The inverse of ``patches``."""
    b, m, h, w, _ = x.shape
    x = x.reshape(b, m, h, w, 3, PATCH, PATCH).transpose(0, 1, 2, 6, 3, 5, 4)
    return x.reshape(b, m, h * PATCH, w * PATCH, 3)
