"""From a flow's sample to the finished picture: denoising and decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from ..device.clock import Clock
from ..exact.denoise import denoise
from ..flow import Context, Flow
from ..vae import Autoencoder


@dataclass(frozen=True)
class Finish:
    """Turns samples of a model into pictures."""

    vae: Autoencoder | None = None  # None: the flow makes pixels
    denoise: bool = True

    def picture(self, flow: Flow, x: mx.array, context: Context, clock: Clock) -> mx.array:
        """Samples x (B, h, w, c) -> pictures (B, H, W, C) in [0, 1]. ``context``: without null
        captions. ``clock``: gets the laps "denoise" and "decode"."""
        if self.denoise:
            x = denoise(flow, x, context)
            mx.eval(x)
            clock.lap("denoise")
        image = x if self.vae is None else self.vae.decode(x)
        image = mx.clip((image.astype(mx.float32) + 1) / 2, 0, 1)
        mx.eval(image)
        clock.lap("decode")
        return image


def psnr(mse: float) -> float | None:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]; None for identical ones."""
    return -10 * math.log10(mse) if mse > 0 else None
