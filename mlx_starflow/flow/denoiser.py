"""The learned denoiser of some STARFlow checkpoints: a transformer over the same tokens, without
causal mask, that predicts the noise."""

from __future__ import annotations

import mlx.core as mx

from ..config import BlockConfig, FlowConfig
from ..device.pieces import Pieces
from .block import Network, layer_operations
from .grid import grid_of, patchify, unpatchify

STEP = 0.3  # a constant of the published model; it does not depend on noise_std


class Denoiser(Network):
    """N(x, text); the denoised latent is x - 0.3 N(x, text)."""

    def __init__(self, config: BlockConfig, flow: FlowConfig):
        super().__init__(config, flow, flow.token_channels)

    def __call__(self, x: mx.array, context: mx.array | None) -> mx.array:
        """Noisy x (B, H, W, C) and text features (B, L, D) -> denoised (B, H, W, C), float32."""
        grid, text = grid_of(x, self.flow), self.text(context)
        hidden = self.proj_in(patchify(x.astype(mx.float32), self.flow))
        prefix = 0 if text is None else text.shape[1]
        if text is not None:
            hidden = mx.concatenate([text, hidden], axis=1)
        table = self.rotation(grid, prefix)
        pieces, work = Pieces(), layer_operations(self.config, *hidden.shape[:2])
        for layer in self.layers:
            hidden = layer(hidden, table, None)
            pieces.add(work, hidden)
        noise = self.outputs(hidden[:, prefix:])
        return x - STEP * unpatchify(noise, grid, self.flow)
