"""Small changes to a flow's matrices, kept in files of their own: LoRA, DoRA, and whole weights."""

from .attached import Attached
from .files import (
    Adapter,
    AdapterConfig,
    Base,
    adapters_below,
    check_stored_adapter,
    read_adapter,
)

__all__ = [
    "Adapter",
    "AdapterConfig",
    "Attached",
    "Base",
    "adapters_below",
    "check_stored_adapter",
    "read_adapter",
]
