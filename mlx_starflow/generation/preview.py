"""Rough pictures of latents without the VAE: one colour per latent cell, by a linear map."""

from __future__ import annotations

import mlx.core as mx

from .components import Components

CELLS = 12  # side of the random latents with which the map is fitted
SMOOTHED = 4  # side of the noise they are enlarged from, as neighbouring cells should be similar


class RoughDecoder:
    """Latents (B, h, w, c) -> images (B, h f, w f, C) in [-1, 1]. Every latent cell becomes a
    square of f x f pixels with the colour weights . latent + bias."""

    def __init__(self, weights: mx.array | None, factor: int) -> None:
        self._weights = weights  # (c + 1, C), the last row the bias; None: latents are pixels
        self._factor = factor

    @classmethod
    def fit(cls, components: Components) -> RoughDecoder:
        """Fit weights and bias by least squares to the VAE's images of random latents."""
        vae = components.vae
        if vae is None:
            return cls(None, 1)
        factor, channels = components.factor, components.flow_config.in_channels
        coarse = mx.random.normal((2, SMOOTHED, SMOOTHED, channels), key=mx.random.key(0))
        repeats = CELLS // SMOOTHED
        latents = mx.repeat(mx.repeat(coarse, repeats, axis=1), repeats, axis=2)
        image = vae.decode(latents)
        cells = image.reshape(2, CELLS, factor, CELLS, factor, -1).mean(axis=(2, 4))
        inputs = _with_one(latents).reshape(-1, channels + 1)
        with mx.stream(mx.cpu):  # the pseudo-inverse exists for the CPU only
            weights = mx.linalg.pinv(inputs) @ cells.reshape(inputs.shape[0], -1)
            mx.eval(weights)
        return cls(weights, factor)

    def __call__(self, latents: mx.array) -> mx.array:
        if self._weights is None:
            return mx.clip(latents, -1, 1)
        colours = mx.clip(_with_one(latents) @ self._weights, -1, 1)
        return mx.repeat(mx.repeat(colours, self._factor, axis=1), self._factor, axis=2)


def _with_one(latents: mx.array) -> mx.array:
    return mx.concatenate([latents, mx.ones((*latents.shape[:-1], 1))], axis=-1)
