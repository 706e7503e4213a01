"""The order in which a block reads the tokens of a picture or clip, and its sequences.

A flipped block reads a picture's tokens in reverse. In a clip it reverses the tokens of every frame
and keeps the order of the frames if the model is causal in time; otherwise it reverses the whole
clip. A local block reads every frame as a separate sequence: the frames become rows of the batch
(arXiv 2511.20462).
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from ..config import BlockConfig, FlowConfig
from .grid import Grid, reverse


@dataclass(frozen=True)
class Order:
    """How one block reads the tokens (B, T, D) of a grid."""

    whole: Grid
    flip: bool
    by_frame: bool  # a flip keeps the order of the frames
    local: bool

    @property
    def grid(self) -> Grid:
        """The grid of one of the block's sequences."""
        return self.whole.one_frame if self.local else self.whole

    @property
    def sequences(self) -> int:
        """The number of sequences in which a picture or clip is read."""
        return self.whole.tokens // self.grid.tokens

    def turn(self, tokens: mx.array) -> mx.array:
        """Tokens (B, T, D) from raster order into the block's order; also the inverse of this."""
        if not self.flip:
            return tokens
        if not self.by_frame or self.whole.frames is None:
            return reverse(tokens)
        frames = tokens.reshape(-1, self.whole.frame_tokens, tokens.shape[2])
        return reverse(frames).reshape(tokens.shape)

    def fold(self, tokens: mx.array) -> mx.array:
        """Tokens (B, T, D) -> the block's sequences (B * sequences, T / sequences, D)."""
        return self._as(tokens, self.grid.tokens)

    def unfold(self, tokens: mx.array) -> mx.array:
        """The inverse of ``fold``."""
        return self._as(tokens, self.whole.tokens)

    def into(self, tokens: mx.array) -> mx.array:
        """Tokens (B, T, D) in raster order -> the block's sequences, in the block's order."""
        return self.fold(self.turn(tokens))

    def back(self, tokens: mx.array) -> mx.array:
        """The inverse of ``into``."""
        return self.turn(self.unfold(tokens))

    @staticmethod
    def _as(tokens: mx.array, length: int) -> mx.array:
        if tokens.shape[1] == length:
            return tokens
        return tokens.reshape(-1, length, tokens.shape[2])


def order_of(block: BlockConfig, flow: FlowConfig, grid: Grid) -> Order:
    """The order in which a block of a flow reads a grid."""
    local = block.local and grid.frames is not None
    return Order(grid, block.flip, flow.temporal_causal > 0, local)
