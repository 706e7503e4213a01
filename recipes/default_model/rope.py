"""Rotary position embedding with a text axis and two spatial axes, over neighbouring pairs."""

from __future__ import annotations

import torch
from torch import Tensor

TEXT_ANGLES = 8  # of the head_dim / 2 angles, those that follow the text position


def rotary_table(
    head_dim: int,
    height: int,
    width: int,
    extent: float,
    text_size: int,
    device=None,
    frames: int = 1,
) -> Tensor:
    """Cosines and sines (2, L + T, head_dim / 2) for [text; image tokens in raster order].

    Of a clip these are the tokens of its frames, one frame after another; the text axis then also
    counts the frames. Positions are scaled to the side `extent` of the training grid, for every
    grid and text length.
    """
    angles = head_dim // 2
    spatial = angles - TEXT_ANGLES if text_size else angles
    f = 10000.0 ** (-2 * torch.arange(spatial // 2, dtype=torch.float64) / spatial)
    scale = extent / (height * width) ** 0.5
    rows = (torch.arange(height, dtype=torch.float64) * scale)[:, None].expand(height, width)
    columns = (torch.arange(width, dtype=torch.float64) * scale)[None].expand(height, width)
    parts = [rows.reshape(-1, 1) * f, columns.reshape(-1, 1) * f]
    if not text_size:
        table = torch.cat(parts, 1).repeat(frames, 1)
    else:
        g = 10000.0 ** (-torch.arange(TEXT_ANGLES, dtype=torch.float64) / TEXT_ANGLES)
        numbers = torch.arange(frames, dtype=torch.float64).repeat_interleave(height * width)
        image = torch.cat([torch.cat(parts, 1).repeat(frames, 1), numbers[:, None] * g], 1)
        places = torch.arange(text_size, dtype=torch.float64) / text_size * extent
        text = torch.cat([torch.zeros(text_size, spatial), places[:, None] * g], 1)
        table = torch.cat([text, image], 0)
    return torch.stack([table.cos(), table.sin()]).float().to(device)


def split_pairs(head_dim: int, rows: int) -> Tensor:
    """Order of the rows (heads · head_dim) of a q or k projection in which the first numbers of all
    pairs precede the second numbers.

    Attention scores do not change if q and k have the same permutation, and contiguous halves are
    rotated much faster.
    """
    head = torch.arange(head_dim).view(-1, 2).t().reshape(-1)
    return (torch.arange(0, rows, head_dim)[:, None] + head).reshape(-1)


class _Rotate(torch.autograd.Function):
    """x·cos + swap(x)·(−sin, sin). Its gradient is the rotation by the negative angle."""

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
    """Rotate x (B, n, ..., head_dim), in the order of `split_pairs`, by the angles of each row."""
    cos, sin = table.to(x.dtype).view(2, table.shape[1], *[1] * (x.ndim - 3), -1)
    return _Rotate.apply(x, cos, sin)
