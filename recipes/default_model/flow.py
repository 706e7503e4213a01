"""STARFlow in PyTorch: autoregressive affine blocks over latent tokens, text before the image.

The state-dict keys are those of STARFlow checkpoints, so a saved model converts like any other.
Shapes: latents (B, C, H, W), tokens (B, T, D), text (B, L, W). A clip of N latent frames is
(B, N, C, H, W); its tokens are those of its frames one after another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .rope import apply_rotary, rotary_table, split_pairs

# softplus(a + SOFTPLUS_SHIFT) = 1 at a = 0: an untrained block is the identity.
SOFTPLUS_SHIFT = 0.541324854612918


@dataclass(frozen=True)
class FlowShape:
    """All settings that determine the parameters and the computation of a flow."""

    grid: int = 8  # tokens per side of the training grid, which is also the rotary extent
    channel_size: int = 4  # latent channels
    patch_size: int = 2
    channels: int = 256
    head_dim: int = 64
    layers_per_block: tuple[int, ...] = (2, 2, 6)  # the last is the deep block
    text_size: int = 24  # text tokens; 0 = no text
    text_width: int = 128
    rope: bool = True  # otherwise a learned position table
    sos: bool = True
    right_to_left: bool = False  # seq_order R2L: blocks with odd index run reversed
    use_softplus: bool = True
    cond_top_only: bool = True
    use_final_norm: bool = True
    soft_clip: float = 4.0
    frames: int = 1  # latent frames of a clip; 1 = pictures
    # In clips a reversed block reverses the tokens inside each frame (temporal_causal), and local
    # blocks, all but the deep one, read each frame as a sequence of its own.
    local: bool = False

    @property
    def token_size(self) -> int:
        return self.channel_size * self.patch_size**2


class RMSNorm(nn.Module):
    """x · rsqrt(mean x² + 1e-6) · (1 + weight), computed in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return (wide * (1 + self.weight.float())).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        order = split_pairs(head_dim, 2 * width)
        order = torch.cat([order, torch.arange(2 * width, 3 * width)])
        self.register_buffer("row_order", order, persistent=False)

    def forward(self, s, table=None, cache: dict | None = None, temperature: float = 1.0):
        """Causal attention; with `cache` the rows follow those that are already in it."""
        batch, rows, width = s.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        if table is not None:
            weight, bias = weight[self.row_order], bias[self.row_order]
        qkv = F.linear(self.norm(s), weight, bias).view(batch, rows, 3, -1, self.head_dim)
        qk, v = qkv[:, :, :2], qkv[:, :, 2].transpose(1, 2)
        if table is not None:
            qk = apply_rotary(qk, table)
        q, k = qk.permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            if "k" in cache:
                k, v = torch.cat([cache["k"], k], 2), torch.cat([cache["v"], v], 2)
            cache["k"], cache["v"] = k, v
        mask, past = None, k.shape[2] - rows
        if past and rows > 1:
            mask = torch.ones(rows, past + rows, dtype=torch.bool, device=s.device).tril(past)
        out = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=not past, scale=self.head_dim**-0.5 / temperature
        )
        return self.proj(out.transpose(1, 2).reshape(batch, rows, width))


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.main = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, s: Tensor) -> Tensor:
        return self.main(self.norm(s))


class Layer(nn.Module):
    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.attention = Attention(width, head_dim)
        self.mlp = MLP(width)

    def forward(self, s, table=None, cache=None, temperature: float = 1.0) -> Tensor:
        s = s + self.attention(s, table, cache, temperature)
        return s + self.mlp(s)


class Block(nn.Module):
    """One autoregressive affine transformation of a token sequence, in the block's token order."""

    def __init__(
        self,
        shape: FlowShape,
        layers: int,
        reverse: bool,
        conditioned: bool,
        local: bool = False,
    ):
        super().__init__()
        self.shape, self.reverse, self.conditioned = shape, reverse, conditioned
        self.local = local
        width, tokens = shape.channels, shape.token_size
        if layers == 0:
            return
        self.proj_in = nn.Linear(tokens, width)
        self.proj_out = nn.Linear(width, 2 * tokens)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)
        if shape.sos:
            self.sos_embed = nn.Parameter(torch.randn(1, 1, tokens) * 0.02)
        if not shape.rope:
            self.pos_embed = nn.Parameter(torch.randn(shape.grid**2, width) * 0.02)
        if conditioned:
            self.proj_txt = nn.Linear(shape.text_width, width)
        if shape.use_final_norm:
            self.final_norm = RMSNorm(width)
        self.attn_blocks = nn.ModuleList(Layer(width, shape.head_dim) for _ in range(layers))

    @property
    def is_identity(self) -> bool:
        return not hasattr(self, "attn_blocks")

    def into(self, tokens: Tensor, frames: int = 1) -> Tensor:
        """(B, T, D) in raster order → the block's sequences, in the block's token order."""
        by_frame = tokens.reshape(len(tokens) * frames, -1, tokens.shape[2])
        by_frame = by_frame.flip(1) if self.reverse else by_frame
        return by_frame if self.local else by_frame.reshape(tokens.shape)

    def back(self, sequences: Tensor, frames: int = 1) -> Tensor:
        """The inverse of ``into``."""
        batch = len(sequences) // frames if self.local else len(sequences)
        by_frame = sequences.reshape(batch * frames, -1, sequences.shape[2])
        by_frame = by_frame.flip(1) if self.reverse else by_frame
        return by_frame.reshape(batch, -1, sequences.shape[2])

    def place(self, h: Tensor, start: int) -> Tensor:
        """Add the learned position table, which is flipped together with the tokens."""
        if self.shape.rope:
            return h
        table = self.pos_embed.flip(0) if self.reverse else self.pos_embed
        return h + table[start : start + h.shape[1]]

    def head(self, s: Tensor) -> Tensor:
        """(B, n, width) → (B, n, 2D) in float32."""
        if self.shape.use_final_norm:
            s = self.final_norm(s)
        with torch.autocast(s.device.type, enabled=False):
            return F.linear(s.float(), self.proj_out.weight.float(), self.proj_out.bias.float())

    def affine(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Network output → (sigma, log sigma, mean), all float32."""
        if self.shape.soft_clip > 0:
            out = self.shape.soft_clip * torch.tanh(out / self.shape.soft_clip)
        a, mean = out.chunk(2, dim=-1)
        if not self.shape.use_softplus:
            return a.exp(), a, mean
        sigma = F.softplus(a + SOFTPLUS_SHIFT)
        return sigma, sigma.log(), mean

    def forward(self, u: Tensor, text: Tensor | None, table: Tensor | None, frames: int = 1):
        """Tokens in raster order → (tokens in raster order, logdet (B, T, D) in block order)."""
        if self.is_identity:
            return u, torch.zeros(len(u), device=u.device)
        shape = u.shape
        u = self.into(u, frames)
        inputs = u
        if self.shape.sos:
            inputs = torch.cat([self.sos_embed.expand(len(u), 1, -1), u[:, :-1]], 1)
        s = self.place(self.proj_in(inputs), 0)
        if self.conditioned:
            s = torch.cat([self.proj_txt(text).to(s.dtype), s], 1)
        for layer in self.attn_blocks:
            s = layer(s, table)
        out = self.head(s[:, -u.shape[1] :])
        if not self.shape.sos:
            out = F.pad(out[:, :-1], (0, 0, 1, 0))
        sigma, log_sigma, mean = self.affine(out)
        v = (u - mean) / sigma
        return self.back(v, frames), -log_sigma.reshape(shape)


class STARFlow(nn.Module):
    def __init__(self, shape: FlowShape):
        super().__init__()
        self.shape = shape
        last = len(shape.layers_per_block) - 1
        self.blocks = nn.ModuleList(
            Block(
                shape,
                layers,
                reverse=(i % 2 == 1) == shape.right_to_left,
                conditioned=shape.text_size > 0 and (i == last or not shape.cond_top_only),
                local=shape.local and i != last,
            )
            for i, layers in enumerate(shape.layers_per_block)
        )

    def tables(
        self, height: int, width: int, device, frames: int = 1
    ) -> tuple[Tensor | None, Tensor | None]:
        """Rotary tables (without text, with text in front) for frames of height × width tokens.

        The first is that of one frame if the blocks that it is for are local.
        """
        shape = self.shape
        if not shape.rope:
            return None, None
        full = rotary_table(
            shape.head_dim, height, width, float(shape.grid), shape.text_size, device, frames
        )
        plain = full[:, shape.text_size :]
        return plain[:, : height * width] if shape.local else plain, full

    def patchify(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, N, C, H, W) → (B, T, D); inside a token (row, column, channel),
        channel fastest."""
        batch, (c, h, w) = len(x), x.shape[-3:]
        p = self.shape.patch_size
        x = x.reshape(-1, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(batch, -1, p * p * c)

    def unpatchify(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        """(B, T, D) → a latent or clip of this shape."""
        p, (c, height, width) = self.shape.patch_size, shape[-3:]
        x = tokens.reshape(-1, height // p, width // p, p, p, c).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(shape)

    def forward(self, x: Tensor, text: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Latent (B, C, H, W) or clip (B, N, C, H, W) → noise of the same shape and each block's
        log-determinants."""
        height, width = x.shape[-2:]
        p, frames = self.shape.patch_size, x.shape[1] if x.ndim == 5 else 1
        plain, with_text = self.tables(height // p, width // p, x.device, frames)
        u, logdets = self.patchify(x.float()), []
        for block in self.blocks:
            u, logdet = block(u, text, with_text if block.conditioned else plain, frames)
            logdets.append(logdet)
        return self.unpatchify(u, x.shape), logdets


def log_prob(flow: STARFlow, x: Tensor, text: Tensor | None = None) -> Tensor:
    """(B,) nats of a noised latent under the flow."""
    z, logdets = flow(x, text)
    prior = -0.5 * (z.square() + torch.log(torch.tensor(2 * torch.pi))).flatten(1).sum(1)
    return prior + sum(logdet.flatten(1).sum(1) for logdet in logdets if logdet.ndim > 1)


def denoise(flow: STARFlow, x: Tensor, text: Tensor | None, noise_std: float) -> Tensor:
    """x + noise_std² · ∇ log p(x | text): the expected clean latent."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (score,) = torch.autograd.grad(log_prob(flow, x, text).sum(), x)
    return (x + noise_std**2 * score).detach()
