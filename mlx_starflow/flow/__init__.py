"""The normalizing flow: blocks, their network, and the stack of them."""

from .block import Block, BlockState, layer_operations
from .model import Context, Flow, Identity

__all__ = ["Block", "BlockState", "Context", "Flow", "Identity", "layer_operations"]
