"""Compression of pictures with the flow as entropy model: ``compress`` and ``decompress``."""

from .pictures import Compressed, compress, compress_picture, decompress, inspect
from .quality import DEFAULT_STEP, step_of_quality

__all__ = [
    "DEFAULT_STEP",
    "Compressed",
    "compress",
    "compress_picture",
    "decompress",
    "inspect",
    "step_of_quality",
]
