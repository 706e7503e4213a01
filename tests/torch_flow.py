"""The likelihood of any flow in PyTorch, in float64: an independent way to the gradients of
tests/test_train_gradient.py. Written from the mathematics; shares no code with mlx_starflow.

Weights are named as in a bundle. Shapes: pictures (B, H, W, C), clips (B, N, H, W, C), tokens
(B, T, D), text (B, L, channels).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mlx_starflow.config import BlockConfig, FlowConfig

Weights = dict[str, Tensor]


def log_prob(config: FlowConfig, weights: Weights, x: Tensor, context: Tensor | None) -> Tensor:
    """log p(x | context) in nats (B,). ``context``: text, or labels (B,) with -1 for none."""
    z, logdet = to_noise(config, weights, x, context)
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1) + logdet


def to_noise(
    config: FlowConfig, weights: Weights, x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The noise as tokens (B, T, D) in raster order, and log |det dz/dx| (B,)."""
    frames = x.shape[1] if x.ndim == 5 else 1
    height, width = (side // config.patch_size for side in x.shape[-3:-1])
    tokens, logdet = _tokens(config, x, height, width), torch.zeros(len(x), dtype=x.dtype)
    for number, block in enumerate(config.blocks):
        if not block.layers:
            continue
        own = {
            name.removeprefix(f"blocks.{number}."): w
            for name, w in weights.items()
            if name.startswith(f"blocks.{number}.")
        }
        turned = _turned(config, block, tokens, frames)
        local = block.local and frames > 1
        rows = turned.reshape(-1, height * width, turned.shape[2]) if local else turned
        shape = (1 if local else frames, height, width)
        log_sigma, mean = _affine(config, block, own, rows, context, shape)
        moved = ((rows - mean) * torch.exp(-log_sigma)).reshape(tokens.shape)
        logdet = logdet - log_sigma.reshape(len(x), -1).sum(1)
        tokens = _turned(config, block, moved, frames)
    return tokens, logdet


def _tokens(config: FlowConfig, x: Tensor, height: int, width: int) -> Tensor:
    """Pictures or clips -> tokens; inside one (row, column, channel), for a TarFlow (channel, row,
    column)."""
    p, channels = config.patch_size, x.shape[-1]
    cut = x.reshape(-1, height, p, width, p, channels)
    order = (0, 1, 3, 5, 2, 4) if config.model_type == "tarflow" else (0, 1, 3, 2, 4, 5)
    return cut.permute(order).reshape(len(x), -1, p * p * channels)


def _turned(config: FlowConfig, block: BlockConfig, tokens: Tensor, frames: int) -> Tensor:
    """Reversed if the block is flipped: a clip frame by frame if the model is causal in time."""
    if not block.flip:
        return tokens
    if frames > 1 and config.temporal_causal:
        by_frame = tokens.reshape(len(tokens) * frames, -1, tokens.shape[2])
        return by_frame.flip(1).reshape(tokens.shape)
    return tokens.flip(1)


def _affine(
    config: FlowConfig,
    block: BlockConfig,
    w: Weights,
    u: Tensor,
    context: Tensor | None,
    shape: tuple[int, int, int],
) -> tuple[Tensor, Tensor]:
    """log sigma and the mean of every number of u (B, T, D), given the tokens before it."""
    inputs = u[:, :-1]
    if config.sos:
        inputs = torch.cat([w["sos_embed"].expand(len(u), 1, -1), inputs], 1)
    hidden = F.linear(inputs, w["proj_in.weight"], w["proj_in.bias"])
    if "pos_embed" in w:
        table = w["pos_embed"].flip(0) if block.flip else w["pos_embed"]
        hidden = hidden + table[: hidden.shape[1]]
    if "class_embed" in w:
        hidden = hidden + _class(w["class_embed"], context, len(u))
    text = 0
    if block.conditioned and config.text_channels:
        prefix = context
        if block.project_text:
            prefix = F.linear(context, w["proj_txt.weight"], w["proj_txt.bias"])
        text = prefix.shape[1]
        hidden = torch.cat([prefix, hidden], 1)
    angles = _angles(config, block, text, shape)
    if angles is not None:
        angles = angles[: hidden.shape[1]]
    for layer in range(block.layers):
        hidden = _layer(block, w, f"layers.{layer}.", hidden, angles)
    hidden = hidden[:, text:]
    if block.final_norm:
        hidden = _rms(hidden, w["final_norm.weight"])
    out = F.linear(hidden, w["proj_out.weight"], w["proj_out.bias"])
    if config.soft_clip:
        out = config.soft_clip * torch.tanh(out / config.soft_clip)
    if config.scale == "unit":
        a, mean = torch.zeros_like(out), out
    else:
        a, mean = out.chunk(2, -1)
    if not config.sos:
        a, mean = (F.pad(t, (0, 0, 1, 0)) for t in (a, mean))  # the first token has no mean
    if config.scale == "softplus":
        a = torch.log(F.softplus(a + math.log(math.e - 1)))
    return a, mean


def _class(table: Tensor, labels: Tensor | None, batch: int) -> Tensor:
    """The class embedding (B, 1, channels); the mean over the classes for -1."""
    mean = table.mean(0)
    if labels is None:
        return mean.expand(batch, 1, -1)
    rows = [mean if label < 0 else table[label] for label in labels.tolist()]
    return torch.stack(rows)[:, None]


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + weight)


def _norm(block: BlockConfig, w: Weights, name: str, x: Tensor) -> Tensor:
    if block.norm == "rms_norm":
        return _rms(x, w[f"{name}.weight"])
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def _layer(block: BlockConfig, w: Weights, name: str, x: Tensor, angles: Tensor | None) -> Tensor:
    """Causal attention and an MLP, each added to x (B, S, channels)."""

    def through(part: str, value: Tensor) -> Tensor:
        return F.linear(value, w[f"{name}{part}.weight"], w.get(f"{name}{part}.bias"))

    heads, kv = block.heads, block.kv_heads
    qkv = through("attention.qkv", _norm(block, w, f"{name}attention.norm", x))
    qkv = qkv.reshape(*x.shape[:2], heads + 2 * kv, block.head_dim).transpose(1, 2)
    q, k, v = qkv.split([heads, kv, kv], 1)
    if block.qk_norm:
        q = _rms(q, w[f"{name}attention.query_norm.weight"])
        k = _rms(k, w[f"{name}attention.key_norm.weight"])
    if angles is not None:
        q, k = (_rotated(t, angles, block.position == "sequence") for t in (q, k))
    k, v = (t.repeat_interleave(heads // kv, 1) for t in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    out = through("attention.proj", out.transpose(1, 2).reshape(*x.shape[:2], -1))
    if block.post_norm:
        out = _rms(out, w[f"{name}attention.post_norm.weight"])
    x = x + out
    inner = _norm(block, w, f"{name}mlp.norm", x)
    if block.gated_mlp:
        wide = F.gelu(through("mlp.gate", inner), approximate="tanh") * through("mlp.up", inner)
    else:
        wide = F.gelu(through("mlp.up", inner))
    out = through("mlp.down", wide)
    if block.post_norm:
        out = _rms(out, w[f"{name}mlp.post_norm.weight"])
    return x + out


def _rotated(x: Tensor, angles: Tensor, halves: bool) -> Tensor:
    """Rotary embedding of x (B, heads, S, head_dim): pairs are neighbours, or halves apart."""
    half = x.shape[-1] // 2
    first, second = (x[..., :half], x[..., half:]) if halves else (x[..., 0::2], x[..., 1::2])
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    if halves:
        return torch.cat([turned.real, turned.imag], -1)
    return torch.view_as_real(turned).flatten(-2)


def _angles(
    config: FlowConfig, block: BlockConfig, text: int, shape: tuple[int, int, int]
) -> Tensor | None:
    """Rotary angles (text + T, head_dim / 2), those of the text first; None with learned positions.

    Spatial positions: row and column, scaled to the side P of the training grid; with text the last
    eight angles are for the text position and for the number of a frame.
    """
    frames, height, width = shape
    if block.position == "table":
        return None
    if block.position == "sequence":
        place = torch.arange(text + frames * height * width, dtype=torch.float64)
        steps = torch.arange(block.head_dim // 2) * 2 / block.head_dim
        return place[:, None] * 10000.0**-steps
    side = config.grid_size if config.rotary_size is None else config.rotary_size
    axis = (block.head_dim // 2 - (8 if config.text_channels else 0)) // 2
    frequency = 10000.0 ** (-torch.arange(axis, dtype=torch.float64) / axis)
    slow = 10000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    rows = []
    for place in range(text):
        rows.append(torch.cat([torch.zeros(2 * axis), place / text * side * slow]))
    stretch = side / math.sqrt(height * width)
    for frame in range(frames):
        for row in range(height):
            for column in range(width):
                angles = [row * stretch * frequency, column * stretch * frequency]
                rows.append(torch.cat(angles + ([frame * slow] if config.text_channels else [])))
    return torch.stack(rows)
