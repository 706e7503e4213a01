"""The loss of the autoencoder: pixels, edges, and the statistics of patches.

The statistics of patches are compared with the sliced Wasserstein distance of `sharpness`, here as
a differentiable loss. It needs no network and prevents fine lines from becoming blurred.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PATCH = 7
# Weight of the distance of each level, finest first.
_LEVEL_WEIGHTS = (1.0, 0.7, 0.4, 0.2)
_STRIDES = (3, 2, 1, 1)


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def _kernel(channels: int, device) -> Tensor:
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=device) / 16
    return (row[:, None] * row).expand(channels, 1, 5, 5)


def _blur(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), kernel, stride=stride, groups=x.shape[1])


def pyramid(x: Tensor, levels: int = len(_LEVEL_WEIGHTS)) -> list[Tensor]:
    """Laplacian pyramid of pictures (B, C, H, W), finest first; the last is the remainder."""
    kernel, bands = _kernel(x.shape[1], x.device), []
    for _ in range(levels - 1):
        small = _blur(x, kernel, 2)
        wide = torch.zeros_like(x)
        wide[..., ::2, ::2] = small
        bands.append(x - 4 * _blur(wide, kernel))
        x = small
    return [*bands, x]


def patch_statistics(
    y: Tensor,
    x: Tensor,
    generator: torch.Generator,
    directions: int = 32,
    remainder: bool = True,
) -> Tensor:
    """Sliced Wasserstein distance of 7×7 patches of pictures y to those of x, over the levels.

    y and x may show different scenes but must have the same shape. Each level is divided by the
    standard deviation of x. Without `remainder` the coarsest level (the colours) is left out.
    """
    levels = min(
        len(_LEVEL_WEIGHTS), (min(x.shape[-2:]) // 8).bit_length()
    )  # the smallest has 8×8 pixels or more
    total, weights = y.new_zeros(()), 0.0
    bands = list(zip(pyramid(y, levels), pyramid(x, levels), strict=True))
    for i, (ours, theirs) in enumerate(bands if remainder else bands[:-1]):
        weight, stride = _LEVEL_WEIGHTS[i], _STRIDES[i]
        deviation = theirs.std((0, 2, 3)) + 1e-4
        shape = (directions, x.shape[1], _PATCH, _PATCH)
        filters = torch.randn(shape, generator=generator, device=x.device)
        filters /= filters.flatten(1).norm(dim=1)[:, None, None, None]
        filters /= deviation[:, None, None]
        top, left = torch.randint(0, stride, (2,), generator=generator, device=x.device).tolist()
        sides = []
        for band in (ours, theirs):
            seen = F.conv2d(band[..., top:, left:], filters, stride=stride)
            sides.append(seen.transpose(0, 1).flatten(1).sort(1).values)
        total, weights = total + weight * (sides[0] - sides[1]).abs().mean(), weights + weight
    return total / weights


def gradient_statistics(y: Tensor, x: Tensor) -> Tensor:
    """Wasserstein distance between the differences of neighbouring pixels of y and of x, relative
    to their mean size. It detects ripples in flat regions, which patch statistics do not."""
    total = y.new_zeros(())
    for ours, theirs in zip(edges(y), edges(x), strict=True):
        sides = [d.transpose(0, 1).flatten(1)[:, ::2].sort(1).values for d in (ours, theirs)]
        total = total + (sides[0] - sides[1]).abs().mean() / theirs.abs().mean()
    return total / 2


def picture_loss(
    y: Tensor, x: Tensor, edge_weight: float, patch_weight: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of reconstructions y of x, the squared error and the patch distance."""
    squared = F.mse_loss(y, x)
    edge = sum(F.l1_loss(a, b) for a, b in zip(edges(y), edges(x), strict=True))
    loss = squared + edge_weight * (edge + F.l1_loss(y, x))
    apart = squared.new_zeros(())
    if patch_weight:
        apart = patch_statistics(y, x, generator)
        loss = loss + patch_weight * apart
    return loss, squared, apart
