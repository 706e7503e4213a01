"""Pictures as small files whose entropy model is the flow: ``compress`` and ``decompress``."""

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
