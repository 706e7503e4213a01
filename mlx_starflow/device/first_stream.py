"""The stream in which imported functions compute.

``mx.import_function`` places a function in the first stream of its device that any thread has made.
Most streams work only in the thread that made them. So the first one is made here, before any
other: it works in all threads, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import mlx.core as mx

from ..errors import UsageError


@lru_cache(maxsize=1)
def make_first_stream() -> mx.Stream:
    """Make the stream, once in a process. Call this before the first computation of a thread."""
    return mx.new_thread_unsafe_stream(mx.default_device())


@contextmanager
def imported_functions() -> Iterator[None]:
    """Around calls of imported functions. Errors: UsageError if another thread of the program used
    MLX before this package did, and the functions therefore compute in that thread only."""
    try:
        yield
    except RuntimeError as error:
        if "There is no Stream" not in str(error):
            raise
        raise UsageError(
            "An export computes in the thread that was the first to use MLX in this process, which "
            "is another one than this. Use the export there, or call sf.exported.load or sf.load "
            "before anything else uses MLX."
        ) from error
