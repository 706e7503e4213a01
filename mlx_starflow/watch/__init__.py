"""Anomaly detection with a chosen false-alarm rate: ``fit`` measures ordinary pictures, ``check``
compares pictures with them."""

from .check import Finding, Region, check
from .reference import Reference, fit, read_reference, write_reference

__all__ = [
    "Finding",
    "Reference",
    "Region",
    "check",
    "fit",
    "read_reference",
    "write_reference",
]
