"""Run an export from Python, to compare it with the model it was made of: ``load``."""

from .manifest import FILE, FORMAT, FORMAT_VERSION, check_sum, read_manifest, write_manifest
from .run import Drawn, Exported, load

__all__ = [
    "FILE",
    "FORMAT",
    "FORMAT_VERSION",
    "Drawn",
    "Exported",
    "check_sum",
    "load",
    "read_manifest",
    "write_manifest",
]
