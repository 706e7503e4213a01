"""The heap of the C library, which on Linux keeps freed memory for later allocations."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> None:
    """Return freed memory to the system, if the C library keeps it (glibc's ``malloc_trim``).

    A long-running process that computes batches of several sizes otherwise keeps the memory of its
    largest batch. Does nothing with other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
