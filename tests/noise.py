"""Adds small random errors to matrix products, as if another device had rounded them."""

from __future__ import annotations

from contextlib import contextmanager

import mlx.core as mx
import pytest


@contextmanager
def noisy_products(size: float, needed: bool = True):
    """Adds relative noise of this size to every product and attention, inside the ``with``, which
    is expected to have some if it is ``needed``."""
    count = [0]

    def noisy(function):
        def run(*arguments, **options):
            result = function(*arguments, **options)
            count[0] += 1
            noise = mx.random.normal(result.shape, key=mx.random.key(count[0]))
            return (result.astype(mx.float32) * (1 + size * noise)).astype(result.dtype)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mx.array, "__matmul__", noisy(mx.array.__matmul__))
        for home, name in ((mx, "addmm"), (mx, "quantized_matmul"),
                           (mx.fast, "scaled_dot_product_attention")):  # fmt: skip
            patch.setattr(home, name, noisy(getattr(home, name)))
        yield count
    assert count[0] or not needed, "no product was disturbed"
