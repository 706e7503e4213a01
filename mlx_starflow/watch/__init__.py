"""Anomalies with a stated false-alarm rate: ``fit`` learns what is ordinary, ``check`` compares."""

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
