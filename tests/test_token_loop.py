"""The cost of one token of the sequential loop: kernels on the device, CPU time."""

from __future__ import annotations

import time

import mlx.core as mx
import pytest
from counting import kernels, one_kernel_each

from mlx_starflow.benchmark import RandomShape, random_context, random_flow
from mlx_starflow.sampling import SampleOptions
from mlx_starflow.sampling.conditional import Conditional

MOST = 20  # kernels of a layer, norms and attention being one each
BEFORE_AND_AFTER = 24  # of a whole token beside its layers, both halves of guidance included
VIEWS = 7  # arrays of a layer that no kernel makes, window 1
HOST = 1.0  # milliseconds of CPU time for a token of 24 layers


def steps(layers: int, dtype: str, window: int = 1, grid: int = 4) -> Conditional:
    """A guided block with so many layers and compiled steps, its first token computed."""
    shape = RandomShape(width=128, layers=(layers,), grid=grid, text_length=8, text_channels=64)
    flow, context = random_flow(shape, dtype), random_context(shape, 1, guided=True)
    options = SampleOptions(guidance=2.0, compile=True)
    block = Conditional(flow.blocks[0], flow.training_grid(), context, 1, options, steps_of=window)
    mx.eval(block.affine(mx.zeros((1, 2, 4)), 0))
    return block


def counted(path, layers: int, dtype: str, window: int = 1) -> tuple[int, int]:
    """Kernels and views of a compiled step of a block with so many layers."""
    with one_kernel_each():
        block = steps(layers, dtype, window)
        outputs = block.affine(mx.zeros((1, window, 4)), 3)
        file = path / "graph.dot"
        found = kernels(file, *outputs, *block.state.arrays()).total()
    # Attention is drawn as two products and a view.
    return found - layers, file.read_text().count("[label =") - found - layers


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 14), ("float16", 16)])
def test_kernels_of_a_layer(tmp_path, dtype, most, window):
    two, three = (counted(tmp_path, layers, dtype, window) for layers in (2, 3))
    kernels, views = three[0] - two[0], three[1] - two[1]
    assert kernels <= most <= MOST
    assert two[0] - 2 * kernels <= BEFORE_AND_AFTER
    if window == 1:
        assert 0 < views <= VIEWS


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_time_of_the_host(dtype):
    """Nothing is computed: the graph of twenty tokens is described, over and over."""
    count, times = 20, []
    with one_kernel_each():
        block = steps(24, dtype, grid=16)
        noise = mx.zeros((1, 1 + count, 4))
        for _ in range(20):
            for cache in block.state.caches:
                cache.keys, cache.values = (mx.zeros_like(a) for a in cache.written())
                mx.eval(cache.written())
            previous, began = mx.zeros((1, 1, 4)), time.process_time()
            for t in range(1, 1 + count):
                sigma, b = block.affine(previous, t)
                previous = sigma * noise[:, t : t + 1] + b
            times.append(1e3 * (time.process_time() - began) / count)
            for cache in block.state.caches:  # drops the graph
                cache.keys, cache.values = (mx.zeros(a.shape, a.dtype) for a in cache.written())
    print(f"{dtype}: {min(times):.2f} ms a token")
    assert min(times) <= HOST


def test_window_2_is_tried():
    from mlx_starflow.sampling.calibrate import COMMITTED_PER_SWEEP

    assert 1 < COMMITTED_PER_SWEEP[2] < COMMITTED_PER_SWEEP[4]
