"""The cost of one token of the sequential loop: kernels on the device, CPU time."""

from __future__ import annotations

import mlx.core as mx
import pytest
from counting import kernels, one_kernel_each

from mlx_starflow.benchmark import RandomShape, random_context, random_flow
from mlx_starflow.sampling import SampleOptions
from mlx_starflow.sampling.conditional import Conditional

MOST = 20  # kernels of a layer, norms and attention being one each
BEFORE_AND_AFTER = 24  # of a whole token beside its layers, both halves of guidance included


def step(path, layers: int, dtype: str, window: int = 1) -> int:
    """Kernels of a compiled step of a block with so many layers."""
    shape = RandomShape(width=128, layers=(layers,), grid=4, text_length=8, text_channels=64)
    flow, context = random_flow(shape, dtype), random_context(shape, 1, guided=True)
    options = SampleOptions(guidance=2.0, compile=True)
    with one_kernel_each():
        block = Conditional(
            flow.blocks[0], flow.training_grid(), context, 1, options, steps_of=window
        )
        mx.eval(block.affine(mx.zeros((1, 2, 4)), 0))
        outputs = block.affine(mx.zeros((1, window, 4)), 3)
        found = kernels(path / "graph.dot", *outputs, *block.state.arrays())
    # Attention is drawn as two products.
    return sum(found.values()) - layers


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 14), ("float16", 18)])
def test_kernels_of_a_layer(tmp_path, dtype, most, window):
    two, three = step(tmp_path, 2, dtype, window), step(tmp_path, 3, dtype, window)
    assert three - two <= most <= MOST
    assert two - 2 * (three - two) <= BEFORE_AND_AFTER


def test_window_2_is_tried():
    from mlx_starflow.sampling.calibrate import COMMITTED_PER_SWEEP

    assert 1 < COMMITTED_PER_SWEEP[2] < COMMITTED_PER_SWEEP[4]
