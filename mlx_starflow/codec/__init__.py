"""Compression of pictures with the flow as entropy model: ``compress`` and ``decompress``."""

from .pictures import Compressed, compress, compress_picture, decompress, inspect
from .quality import DEFAULT_STEP, step_of_quality
from .weights import measured_step_weights

__all__ = [
    "DEFAULT_STEP",
    "Compressed",
    "compress",
    "compress_picture",
    "decompress",
    "inspect",
    "measured_step_weights",
    "step_of_quality",
]
