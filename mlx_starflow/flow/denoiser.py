"""The learned denoiser of some STARFlow checkpoints: a transformer over the same tokens, without
causal mask, that predicts the noise. In a picture every token attends to all others; in a clip to
the tokens of a window of frames around its own (arXiv 2511.20462)."""

from __future__ import annotations

from typing import cast

import mlx.core as mx

from ..config import BlockConfig, FlowConfig
from ..device.pieces import Pieces
from .block import Network, layer_operations
from .grid import Grid, grid_of, patchify, unpatchify
from .layers import Span

STEP = 0.3  # a constant of the published model; it does not depend on noise_std


class Denoiser(Network):
    """N(x, text); the denoised latent is x - 0.3 N(x, text)."""

    def __init__(self, config: BlockConfig, flow: FlowConfig):
        super().__init__(config, flow, flow.token_channels)

    def __call__(self, x: mx.array, context: mx.array | None) -> mx.array:
        """Noisy x (B, H, W, C) or (B, N, H, W, C) and text features (B, L, D) -> denoised, float32,
        of the shape of x."""
        grid, text = grid_of(x, self.flow), self.text(context)
        hidden = self.proj_in(patchify(x.astype(mx.float32), self.flow))
        prefix = 0 if text is None else text.shape[1]
        if text is not None:
            hidden = mx.concatenate([text, hidden], axis=1)
        table, spans = self.rotation(grid, prefix), self.spans(grid, prefix)
        pieces, work = Pieces(), layer_operations(self.config, *hidden.shape[:2])
        for layer in self.layers:
            hidden = layer(hidden, table, spans)
            pieces.add(work, hidden)
        noise = self.outputs(hidden[:, prefix:])
        return x - STEP * unpatchify(noise, grid, self.flow)

    def spans(self, grid: Grid, prefix: int) -> list[Span] | None:
        """Who sees whom in a clip behind ``prefix`` text tokens; None: everyone sees everyone.

        With A = temporal_causal and G = denoiser_window, frame f sees the text and frames
        f + A - 1 - G ... f + A - 1, the text sees itself and frames 0 ... A - 1.
        """
        ahead, window = self.flow.temporal_causal - 1, self.flow.denoiser_window
        if grid.frames is None or ahead < 0:
            return None

        def place(frame: int) -> int:
            return prefix + min(frame, cast(int, grid.frames)) * grid.frame_tokens

        text = slice(0, prefix)
        spans = [Span(text, (slice(0, place(ahead + 1)),))] if prefix else []
        for f in range(grid.frames):
            first = 0 if window is None else max(0, f + ahead - window)
            seen = slice(place(first), place(f + ahead + 1))
            keys = (text, seen) if first else (slice(0, seen.stop),)
            spans.append(Span(slice(place(f), place(f + 1)), keys))
        return spans
