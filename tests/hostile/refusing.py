"""Checking that a function refuses its input."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from mlx_starflow.errors import StarflowError


def refused(function, seconds: float = 15) -> str:
    """The message of a refusal that came in time and without much memory."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(StarflowError) as caught:
            function()
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < seconds and len(str(caught.value)) < 1000
    return str(caught.value)
