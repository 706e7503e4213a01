"""The normalizing flow: transformer layers, autoregressive blocks, and the stack of blocks."""

from .block import Block, BlockState, layer_operations
from .model import Context, Flow, Identity

__all__ = ["Block", "BlockState", "Context", "Flow", "Identity", "layer_operations"]
