"""Adapters: changes to a flow's weights, stored in separate files (LoRA, DoRA or all weights)."""

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
