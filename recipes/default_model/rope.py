"""Two spatial axes and a text axis as rotary angles over neighbouring pairs."""

from __future__ import annotations

import torch
from torch import Tensor

TEXT_ANGLES = 8  # of the head_dim / 2 angles, those that follow the text position


def rotary_table(
    head_dim: int, height: int, width: int, extent: float, text_size: int, device=None
) -> Tensor:
    """Cosines and sines (2, L + T, head_dim / 2) for [text; image tokens in raster order].

    Positions are scaled to the training grid's side `extent`, whatever the grid or text length.
    """
    angles = head_dim // 2
    spatial = angles - TEXT_ANGLES if text_size else angles
    f = 10000.0 ** (-2 * torch.arange(spatial // 2, dtype=torch.float64) / spatial)
    scale = extent / (height * width) ** 0.5
    rows = (torch.arange(height, dtype=torch.float64) * scale)[:, None].expand(height, width)
    columns = (torch.arange(width, dtype=torch.float64) * scale)[None].expand(height, width)
    parts = [rows.reshape(-1, 1) * f, columns.reshape(-1, 1) * f]
    if not text_size:
        table = torch.cat(parts, 1)
    else:
        image = torch.cat([*parts, torch.zeros(height * width, TEXT_ANGLES)], 1)
        g = 10000.0 ** (-torch.arange(TEXT_ANGLES, dtype=torch.float64) / TEXT_ANGLES)
        places = torch.arange(text_size, dtype=torch.float64) / text_size * extent
        text = torch.cat([torch.zeros(text_size, spatial), places[:, None] * g], 1)
        table = torch.cat([text, image], 0)
    return torch.stack([table.cos(), table.sin()]).float().to(device)


def split_pairs(head_dim: int, rows: int) -> Tensor:
    """Row order of a q or k projection (rows = heads · head_dim) that puts pair halves apart.

    Scores do not change when q and k are permuted alike, and contiguous halves rotate far faster.
    """
    head = torch.arange(head_dim).view(-1, 2).t().reshape(-1)
    return (torch.arange(0, rows, head_dim)[:, None] + head).reshape(-1)


class _Rotate(torch.autograd.Function):
    """x·cos + swap(x)·(−sin, sin); its own inverse with the sine negated, hence its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    def backward(ctx, grad: Tensor):
        cos, sin = ctx.saved_tensors
        return _rotate(grad, cos, -sin), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Rotate x (B, n, ..., head_dim), halves apart as by `split_pairs`, by each row's angles."""
    cos, sin = table.to(x.dtype).view(2, table.shape[1], *[1] * (x.ndim - 3), -1)
    return _Rotate.apply(x, cos, sin)
