"""Group normalization with a fast implementation for CPUs."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import on_gpu

# diffusers builds every GroupNorm of these autoencoders with 1e-6 instead of torch's 1e-5.
EPS = 1e-6


class GroupNorm(nn.GroupNorm):
    """Normalizes x (B, H, W, C) to mean 0 and variance 1 in every group of consecutive channels,
    then scales and shifts every channel. MLX transposes the groups first, which on a CPU takes
    longer than the norm."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=EPS, pytorch_compatible=True)

    def __call__(self, x: mx.array) -> mx.array:
        if on_gpu() or x.dtype != mx.float32:
            return super().__call__(x)  # type: ignore[no-untyped-call]
        centred = x - self._group_means(x)
        variance = self._group_means(centred * centred)
        return centred * (mx.rsqrt(variance + self.eps) * self.weight) + self.bias

    def _group_means(self, x: mx.array) -> mx.array:
        """The mean of the group of every channel, (B, 1, 1, C). The means over columns, rows and
        channels are taken one after another, which has less rounding error than all at once."""
        batch, channels = x.shape[0], x.shape[-1]
        means = x.mean(axis=2).mean(axis=1).reshape(batch, self.num_groups, -1).mean(axis=-1)
        return mx.repeat(means, channels // self.num_groups, axis=1)[:, None, None]
