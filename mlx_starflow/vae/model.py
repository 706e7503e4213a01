"""AutoencoderKL: images to latents and back, numerically equal to diffusers' class."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..config import VAEConfig
from ..errors import ImageError, UsageError
from .coders import Decoder, Encoder
from .tiling import in_tiles

# By default, a latent with more than LARGE cells is decoded in tiles of TILE x TILE cells. With the
# SD autoencoders, 64 x 64 cells are 512 x 512 pixels, whose largest activations take about 1 GB.
LARGE = 64 * 64
TILE = 64


class AutoencoderKL(nn.Module):
    """Channels-last autoencoder whose parameters are named as in a diffusers checkpoint.

    Converting such a checkpoint takes three rules:
    - a 4-D convolution weight (out, in, kh, kw) becomes (out, kh, kw, in): transpose(0, 2, 3, 1);
    - the names of older checkpoints, ``attentions.0.{query,key,value,proj_attn}``, become
      ``attentions.0.{to_q,to_k,to_v,to_out.0}``;
    - attention weights stored as 1x1 convolutions (C, C, 1, 1) become (C, C).
    ``quant_conv`` and ``post_quant_conv`` exist if the configuration says so. Below, f is the
    number of pixels per latent cell along one side, c the number of latent channels.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        channels = config.latent_channels
        if config.use_quant_conv:
            self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        if config.use_post_quant_conv:
            self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    def encode_moments(self, image: mx.array) -> tuple[mx.array, mx.array]:
        """Image (B, H, W, 3) in [-1, 1] -> mean and standard deviation (B, H/f, W/f, c), float32,
        both multiplied by the scaling factor. Errors: ImageError if H or W is not a multiple of
        f."""
        factor, channels = self.config.factor, self.config.in_channels
        if image.ndim != 4 or image.shape[-1] != channels:
            raise ImageError(
                f"The image to encode has shape {tuple(image.shape)}; "
                f"expected (B, H, W, {channels})."
            )
        if image.shape[1] % factor or image.shape[2] % factor:
            raise ImageError(
                f"The image to encode is {image.shape[2]}x{image.shape[1]} pixels; "
                f"both sides must be multiples of {factor}. Resize or crop it first."
            )
        moments = [self._moments(image[i : i + 1]) for i in range(image.shape[0])]
        mean, logvar = mx.split(mx.concatenate(moments).astype(mx.float32), 2, axis=-1)
        # The same bounds as in diffusers; they prevent an overflow.
        std = mx.exp(0.5 * mx.clip(logvar, -30.0, 20.0))
        scale = self.config.scaling_factor
        return mean * scale, std * scale

    def encode(self, image: mx.array) -> mx.array:
        """Image (B, H, W, 3) in [-1, 1] -> mean latent (B, H/f, W/f, c), multiplied by the scaling
        factor, float32. Errors: ImageError."""
        return self.encode_moments(image)[0]

    def decode(self, latent: mx.array, tile: int | None = None) -> mx.array:
        """Scaled latent (B, h, w, c) -> image (B, h*f, w*f, 3), float32, about [-1, 1].

        ``tile``: side, in latent cells, of square tiles for the upper part of the decoder;
        neighbours overlap by a quarter and are blended. 0: no tiles. None: tiles of TILE cells if
        the latent has more than LARGE cells. Tiles limit the memory but change the image slightly,
        since the norms use the pixels of one tile only.
        Images are decoded one after another, so memory does not grow with the batch size, and
        each result is independent of the others. Errors: UsageError for a latent or tile of the
        wrong size.
        """
        channels = self.config.latent_channels
        if latent.ndim != 4 or latent.shape[-1] != channels:
            raise UsageError(
                f"The latent to decode has shape {tuple(latent.shape)}; "
                f"expected (B, h, w, {channels})."
            )
        if tile is None:
            tile = TILE if latent.shape[1] * latent.shape[2] > LARGE else 0
        images = []
        for i in range(latent.shape[0]):
            images.append(self._decode_one(latent[i : i + 1], tile))
            if latent.shape[0] > 1:
                mx.eval(images[-1])  # frees the activations before the next image
        return mx.concatenate(images)

    def _moments(self, image: mx.array) -> mx.array:
        h = self.encoder(image.astype(self.encoder.conv_in.weight.dtype))
        return self.quant_conv(h) if "quant_conv" in self else h

    def middle(self, latent: mx.array) -> mx.array:
        """Scaled latent (B, h, w, c) -> cells (B, h, w, widest), the input of ``decoder.upper``."""
        z = (latent / self.config.scaling_factor).astype(self.decoder.conv_in.weight.dtype)
        if "post_quant_conv" in self:
            z = self.post_quant_conv(z)
        return self.decoder.middle(z)

    def _decode_one(self, latent: mx.array, tile: int) -> mx.array:
        h = self.middle(latent)
        if tile and (tile < h.shape[1] or tile < h.shape[2]):
            return in_tiles(h, self.decoder.upper, self.config.factor, tile)
        return self.decoder.upper(h).astype(mx.float32)
