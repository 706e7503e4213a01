"""Adds small random errors to products and convolutions, as if another device had rounded them."""

from __future__ import annotations

import zlib
from contextlib import contextmanager

import mlx.core as mx
import pytest

PRODUCTS = (
    "addmm", "matmul", "quantized_matmul", "conv_general", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
)  # fmt: skip


@contextmanager
def noisy_products(size: float, needed: bool = True, steady: bool = False):
    """Adds relative noise of this size to every product, convolution and attention, inside the
    ``with``, which is expected to have some if it is ``needed``. ``steady``: the same number in a
    product of the same shapes gets the same noise each time, as on a device; else every call has
    its own."""
    count = [0]

    def noisy(function):
        def run(*arguments, **options):
            result = function(*arguments, **options)
            count[0] += 1
            if steady:
                noise = _rounding(result, arguments)
            else:
                noise = mx.random.normal(result.shape, key=mx.random.key(count[0]))
            return (result.astype(mx.float32) * (1 + size * noise)).astype(result.dtype)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mx.array, "__matmul__", noisy(mx.array.__matmul__))
        patch.setattr(mx.fast, "scaled_dot_product_attention",
                      noisy(mx.fast.scaled_dot_product_attention))  # fmt: skip
        for name in PRODUCTS:
            patch.setattr(mx, name, noisy(getattr(mx, name)))
        yield count
    assert count[0] or not needed, "no product was disturbed"


def _rounding(result: mx.array, arguments: tuple) -> mx.array:
    """Numbers of deviation 1, of the shape of ``result``, that its bits and the shapes of the
    arguments determine (a hash like MurmurHash3's last step)."""
    shapes = [a.shape for a in arguments if isinstance(a, mx.array)]
    bits = mx.stop_gradient(result.astype(mx.float32)).view(mx.uint32)
    bits = bits ^ zlib.crc32(repr(shapes).encode())
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        bits = (bits ^ (bits >> shift)) * mx.array(factor, mx.uint32)
    return 3**0.5 * (bits.astype(mx.float32) / 2**31 - 1)
