"""In what order, and in how many sequences, a block reads the tokens of a picture or clip.

A flipped block reads a picture's tokens backwards. In a clip it turns the tokens inside of every
frame and leaves the frames in their order where the model is causal in time, else it turns the
whole clip. A local block reads every frame as a sequence of its own: the frames become rows of the
batch, and the block sees pictures (arXiv 2511.20462).
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
        """Sequences that a picture or clip is read in."""
        return self.whole.tokens // self.grid.tokens

    def turn(self, tokens: mx.array) -> mx.array:
        """(B, T, D) from raster order into the block's order, or back: it is its own inverse."""
        if not self.flip:
            return tokens
        if not self.by_frame or self.whole.frames is None:
            return reverse(tokens)
        frames = tokens.reshape(-1, self.whole.frame_tokens, tokens.shape[2])
        return reverse(frames).reshape(tokens.shape)

    def fold(self, tokens: mx.array) -> mx.array:
        """(B, T, D) as the block's sequences, (B sequences, T / sequences, D)."""
        return self._as(tokens, self.grid.tokens)

    def unfold(self, tokens: mx.array) -> mx.array:
        """The inverse of ``fold``."""
        return self._as(tokens, self.whole.tokens)

    def into(self, tokens: mx.array) -> mx.array:
        """(B, T, D) in raster order -> the block's sequences, in its own order."""
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
    """How a block of a flow reads a grid."""
    local = block.local and grid.frames is not None
    return Order(grid, block.flip, flow.temporal_causal > 0, local)
