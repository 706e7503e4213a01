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


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the pairs (x_2k, x_2k+1) of x (B, heads, n, head_dim) by angle k of each row."""
    cos, sin = table.to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
