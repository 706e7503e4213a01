"""Sampling: the exact inverse of the flow, token after token, with a KV cache."""

from __future__ import annotations

import torch
from torch import Tensor

from .flow import Block, STARFlow


def _guided(sigma, mean, weight: float):
    """Combine σ and mean of the halves of a batch (captions, null captions) by guidance."""
    sigma_c, sigma_u = sigma.chunk(2)
    mean_c, mean_u = mean.chunk(2)
    s = (sigma_c / sigma_u).clamp(max=1).square()
    q = 1 + weight - weight * s
    return sigma_c / q.sqrt(), ((1 + weight) * mean_c - weight * s * mean_u) / q


def _invert_block(
    block: Block,
    v: Tensor,
    text: Tensor | None,
    table,
    guidance: float,
    temperature: float,
    frames: int,
) -> Tensor:
    if block.is_identity:
        return v
    v = block.into(v, frames)
    copies = 2 if guidance > 0 and block.conditioned else 1
    caches: list[dict] = [{} for _ in block.attn_blocks]
    start = 0

    def run(s: Tensor) -> Tensor:
        nonlocal start
        rows = None if table is None else table[:, start : start + s.shape[1]]
        start += s.shape[1]
        for layer, cache in zip(block.attn_blocks, caches, strict=True):
            s = layer(s, rows, cache, temperature)
        return s

    if block.conditioned:
        run(block.proj_txt(text if copies == 2 else text[: len(v)]))
    tokens: list[Tensor] = []
    for t in range(v.shape[1]):
        inputs, place = (tokens[-1] if tokens else None), t
        if block.shape.sos:
            inputs = inputs if tokens else block.sos_embed.expand(len(v), 1, -1)
        else:
            place = t - 1
        if inputs is None:
            out = v.new_zeros(len(v) * copies, 1, 2 * v.shape[2])
        else:
            out = block.head(run(block.place(block.proj_in(inputs.repeat(copies, 1, 1)), place)))
        sigma, _, mean = block.affine(out)
        if copies == 2:
            sigma, mean = _guided(sigma, mean, guidance)
        tokens.append(sigma * v[:, t : t + 1] + mean)
    return block.back(torch.cat(tokens, 1), frames)


@torch.no_grad()
def invert(
    flow: STARFlow,
    z: Tensor,
    text: Tensor | None = None,
    guidance: float = 0.0,
    attention_temperature: float = 1.0,
) -> list[Tensor]:
    """Noise z (B, C, H, W) or, for clips, (B, N, C, H, W) → the latents after 0, 1, … K inverted
    blocks; the last is the sample.

    With guidance > 0 `text` has 2B rows: the captions, then the null captions.
    """
    height, width = z.shape[-2:]
    p, frames = flow.shape.patch_size, z.shape[1] if z.ndim == 5 else 1
    plain, with_text = flow.tables(height // p, width // p, z.device, frames)
    u, stages = flow.patchify(z), [z]
    for block in reversed(flow.blocks):
        table = with_text if block.conditioned else plain
        u = _invert_block(block, u, text, table, guidance, attention_temperature, frames)
        stages.append(flow.unpatchify(u, z.shape))
    return stages
